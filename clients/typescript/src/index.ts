/** The client of the FloopFloop AI Gateway, over fetch. */

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Options {
  model?: string;
  system?: string;
  temperature?: number;
  max_tokens?: number;
  /** Ends the call from outside. */
  signal?: AbortSignal;
}

export interface ChatRequest extends Options {
  messages: Message[];
}

export interface GenerateRequest extends Options {
  prompt: string;
}

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  credits_used: number;
  credits_remaining: number | null;
}

export interface Answer {
  content: string;
  model: string;
  usage: Usage;
  finishReason: string;
  requestId: string | null;
}

export interface ClientOptions {
  /** The project's key. */
  apiKey: string | undefined;
  /** Where the gateway is mounted. */
  baseUrl?: string;
  /** How often a call is tried again. */
  maxRetries?: number;
  /** Another `fetch`. */
  fetch?: typeof fetch;
}

/** A call failed. `code` is the gateway's, `status` the HTTP status, or 0 without an answer. */
export class FloopError extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly status: number,
    readonly requestId: string | null = null,
    readonly retryAfterMs: number | null = null,
  ) {
    super(`${code}: ${message}${requestId === null ? "" : ` (${requestId})`}`);
    this.name = "FloopError";
  }
}

const DEFAULT_URL = "https://api.floopfloop.com/api/v1/ai";
const MAY_HELP = new Set([408, 409, 429, 502, 503, 504]);
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 8_000;
/** A server that asks for more is not waited for: the caller decides. */
const LONGEST_WAIT_MS = 60_000;

export class FloopAI {
  readonly #apiKey: string;
  readonly #url: string;
  readonly #maxRetries: number;
  readonly #fetch: typeof fetch;

  constructor(options: ClientOptions) {
    if (!options.apiKey) throw new TypeError("apiKey must be given");
    this.#apiKey = options.apiKey;
    this.#url = (options.baseUrl ?? DEFAULT_URL).replace(/\/+$/, "");
    this.#maxRetries = options.maxRetries ?? 2;
    this.#fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  /** Answer a list of messages. */
  async chat(request: ChatRequest): Promise<Answer> {
    return this.#answer("/chat", request);
  }

  /** Answer one prompt. */
  async generate(request: GenerateRequest): Promise<Answer> {
    return this.#answer("/generate", request);
  }

  /** Return the texts of an answer as they come. */
  stream(request: ChatRequest | GenerateRequest): FloopStream {
    const path = "prompt" in request ? "/generate" : "/chat";
    const { signal: outer, ...fields } = request;
    return new FloopStream((inner) => {
      const signal = outer === undefined ? inner : AbortSignal.any([outer, inner]);
      return this.#send(path, { ...fields, signal, stream: true });
    });
  }

  /** Embeddings are reserved for later. */
  async embed(request: { input: string }): Promise<never> {
    const response = await this.#send("/embed", request);
    throw await refusal(response);
  }

  async #answer(path: string, request: Options): Promise<Answer> {
    const response = await this.#send(path, { ...request });
    try {
      const value = (await response.json()) as Omit<Answer, "requestId">;
      return { ...value, requestId: response.headers.get("x-request-id") };
    } catch {
      throw new FloopError("the answer cannot be read", "UNKNOWN", 200, response.headers.get("x-request-id"));
    }
  }

  async #send(path: string, request: Record<string, unknown>): Promise<Response> {
    const { signal: given, ...fields } = request;
    const signal = given as AbortSignal | undefined;
    const init: RequestInit = {
      method: "POST",
      body: JSON.stringify(fields),
      headers: {
        Authorization: `Bearer ${this.#apiKey}`,
        "Content-Type": "application/json",
        "Idempotency-Key": globalThis.crypto.randomUUID(),
      },
      ...(signal === undefined ? {} : { signal }),
    };
    for (let tries = 0; ; tries++) {
      let response: Response;
      try {
        response = await this.#fetch(this.#url + path, init);
      } catch (error) {
        if (signal?.aborted) throw error;
        if (tries < this.#maxRetries) {
          await sleep(backoff(tries));
          continue;
        }
        throw new FloopError(`the gateway at ${this.#url} cannot be reached`, "CONNECTION_FAILED", 0);
      }
      if (response.status === 200) return response;
      const delay = retryDelay(response, tries);
      if (delay === null || tries >= this.#maxRetries) throw await refusal(response);
      await response.body?.cancel();
      await sleep(delay);
    }
  }
}

/** The texts of one answer, once: `for await (const text of stream)`. The rest is known at its end. */
export class FloopStream implements AsyncIterable<string> {
  usage: Usage | null = null;
  finishReason: string | null = null;
  requestId: string | null = null;
  readonly #open: (signal: AbortSignal) => Promise<Response>;

  constructor(open: (signal: AbortSignal) => Promise<Response>) {
    this.#open = open;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    const controller = new AbortController();
    const response = await this.#open(controller.signal);
    this.requestId = response.headers.get("x-request-id");
    let done = false;
    try {
      let rest = "";
      const decoder = new TextDecoder();
      const reader = response.body!.getReader();
      while (!done) {
        let chunk: ReadableStreamReadResult<Uint8Array>;
        try {
          chunk = await reader.read();
        } catch {
          break;
        }
        if (chunk.done) break;
        rest += decoder.decode(chunk.value, { stream: true });
        const events = rest.split("\n\n");
        rest = events.pop() ?? "";
        for (const event of events) {
          for (const line of event.split("\n")) {
            if (!line.startsWith("data:")) continue;
            const data = line.slice(5).trim();
            if (data === "[DONE]") {
              done = true;
            } else {
              const text = this.#frame(data);
              if (text !== null) yield text;
            }
          }
        }
      }
      if (!done) throw new FloopError("the stream ended before its end", "STREAM_CUT", 200, this.requestId);
    } finally {
      if (!done) controller.abort();
    }
  }

  #frame(data: string): string | null {
    let value: { text?: string; usage?: Usage; finishReason?: string; error?: string; code?: string };
    try {
      value = JSON.parse(data);
    } catch {
      throw new FloopError("a frame of the stream cannot be read", "STREAM_CUT", 200, this.requestId);
    }
    if (value.text !== undefined) return value.text;
    this.usage = value.usage ?? null;
    this.finishReason = value.finishReason ?? null;
    if (value.error !== undefined) throw new FloopError(value.error, value.code ?? "UNKNOWN", 200, this.requestId);
    return null;
  }
}

async function refusal(response: Response): Promise<FloopError> {
  let code = "UNKNOWN";
  let message = `the server answered with status ${response.status}`;
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    [code, message] = [String(error.code), String(error.message)];
  } catch {
    // a proxy's own page
  }
  return new FloopError(message, code, response.status, response.headers.get("x-request-id"), retryAfter(response));
}

function retryAfter(response: Response): number | null {
  const header = response.headers.get("retry-after");
  const seconds = header === null ? NaN : Number(header);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : null;
}

function retryDelay(response: Response, tries: number): number | null {
  const says = response.headers.get("x-should-retry");
  if (says === "false" || (says !== "true" && !MAY_HELP.has(response.status))) return null;
  const asked = retryAfter(response);
  if (asked !== null) return asked <= LONGEST_WAIT_MS ? asked : null;
  return response.status === 409 ? null : backoff(tries);
}

function backoff(tries: number): number {
  return Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** tries) * (0.5 + Math.random() / 2);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
