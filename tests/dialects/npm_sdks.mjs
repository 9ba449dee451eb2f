// What the vendors' own SDKs for JavaScript, and Vercel's AI SDK, make of the gateway: printed as one JSON object.
import assert from "node:assert";

const [sdk, url, key] = process.argv.slice(2);
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const ASK = "What is the weather in Köln?";
const found = {};

async function error(action) {
  try {
    await action();
  } catch (error) {
    return { name: error.constructor.name, status: error.status ?? error.statusCode ?? null };
  }
  return null;
}

async function withOpenAI() {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  const ask = (more) => client.chat.completions.create({ model: "smart", messages: [{ role: "user", content: ASK }], ...more });
  const answer = await ask({});
  found.chat = [answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage.prompt_tokens];
  let text = "";
  for await (const chunk of await ask({ stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
  found.stream = text;
  const tools = [{ type: "function", function: { name: "weather", parameters: city } }];
  const asked = await ask({ tools });
  const call = asked.choices[0].message.tool_calls[0];
  found.call = [call.function.name, JSON.parse(call.function.arguments)];
  const result = { role: "tool", tool_call_id: call.id, content: "18 degrees in Köln" };
  const done = await client.chat.completions.create({
    model: "smart", tools, messages: [{ role: "user", content: ASK }, asked.choices[0].message, result],
  });
  found.loop = done.choices[0].message.content;
  const schema = { type: "json_schema", json_schema: { name: "city", strict: true, schema: city } };
  const typed = await client.chat.completions.parse({
    model: "smart", messages: [{ role: "user", content: ASK }], response_format: schema,
  });
  found.typed = JSON.parse(typed.choices[0].message.content);
  found.wrongKey = await error(() => new OpenAI({ baseURL: `${url}/v1`, apiKey: "flp_sk_wrong", maxRetries: 0 }).models.list());
  found.wrongField = await error(() => ask({ n: 2 }));
  found.cut = await error(async () => {
    for await (const chunk of await ask({ stream: true })) assert(chunk);
  });
}

async function withAnthropic() {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
  const ask = (more) =>
    client.messages.create({ model: "smart", max_tokens: 999, messages: [{ role: "user", content: ASK }], ...more });
  const answer = await ask({});
  found.chat = [answer.content[0].text, answer.stop_reason, answer.usage.input_tokens];
  const stream = client.messages.stream({ model: "smart", max_tokens: 999, messages: [{ role: "user", content: ASK }] });
  found.stream = (await stream.finalMessage()).content[0].text;
  const tools = [{ name: "weather", input_schema: city }];
  const asked = await ask({ tools });
  const call = asked.content.find((block) => block.type === "tool_use");
  found.call = [call.name, call.input];
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "18 degrees in Köln" }] };
  const messages = [{ role: "user", content: ASK }, { role: "assistant", content: asked.content }, result];
  found.loop = (await ask({ tools, messages })).content[0].text;
  const typed = await ask({ output_config: { format: { type: "json_schema", schema: city } } });
  found.typed = JSON.parse(typed.content[0].text);
  found.wrongKey = await error(() => new Anthropic({ baseURL: url, apiKey: "flp_sk_wrong", maxRetries: 0 }).models.list());
  found.wrongField = await error(() => ask({ container: "x" }));
  found.cut = await error(async () => {
    for await (const event of await ask({ stream: true })) assert(event);
  });
}

async function withVercel() {
  const { generateText, streamText, tool, stepCountIs, Output, jsonSchema } = await import("ai");
  const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
  const make = (apiKey) =>
    createOpenAICompatible({ name: "floop", baseURL: `${url}/v1`, apiKey, supportsStructuredOutputs: true })("smart");
  const common = { model: make(key), prompt: ASK, maxRetries: 0 };
  const answer = await generateText(common);
  found.chat = [answer.text, answer.finishReason, answer.usage.inputTokens];
  let text = "";
  for await (const piece of streamText(common).textStream) text += piece;
  found.stream = text;
  let call = null;
  const weather = tool({
    inputSchema: jsonSchema(city),
    execute: async (input) => {
      call = ["weather", input];
      return `18 degrees in ${input.city}`;
    },
  });
  const done = await generateText({ ...common, tools: { weather }, stopWhen: stepCountIs(2) });
  found.call = call;
  found.loop = done.text;
  const typed = await generateText({ ...common, output: Output.object({ schema: jsonSchema(city) }) });
  found.typed = typed.output;
  found.wrongKey = await error(() => generateText({ ...common, model: make("flp_sk_wrong") }));
  found.wrongField = await error(() => generateText({ ...common, temperature: 9 }));
  const broken = await error(async () => {
    let failure = null;
    const cut = streamText({ ...common, onError: ({ error }) => (failure = error) });
    for await (const piece of cut.textStream) assert(piece !== undefined);
    if (failure) throw failure;
  });
  found.cut = broken;
}

await { openai: withOpenAI, anthropic: withAnthropic, vercel: withVercel }[sdk]();
console.log(JSON.stringify(found));
