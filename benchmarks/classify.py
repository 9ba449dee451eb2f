"""Measures the `auto` classifier, and prints one table.

    python -m benchmarks.classify [DATA_FOLDER ...]

The weights are fitted on our own requests alone. So folders of data (`routes.jsonl`) measure the shipped table on sources
that it has never seen, and our own requests are measured by weights that are fitted anew without their style or language.
Without a folder it says so, and skips what needs others' labels. Where a folder holds `outcomes.jsonl` (a
line for each question: `benchmark`, `prompt`, and how well a `weak` and a `strong` model did, from 0 to 1), it prints how
well the score says which questions need the strong one. Speed is compared, in the same run, with LiteLLM's complexity
router where that is installed; only ratios mean something, since machines differ.
"""

import argparse
import importlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from floop_gateway_core.policy.auto.classify import classify
from floop_gateway_core.policy.auto.cues import cues
from floop_gateway_core.policy.auto.features import features
from floop_gateway_core.types import Message
from tools.fit_classify import KINDS, Example, fit, our_examples, own_examples, routes, source_of, weights_of

ENGLISH = ("own:en:", "own:talk", "own:system")
PUZZLES = ("gsm8k", "aqua", "mgsm", "bbh", "planbench")
OUR_PUZZLES = tuple(
    f"own:en:{name}"
    for name in ("sums", "maths", "math2", "logic", "puzzle2", "story2", "zebra", "closed", "grids", "rules")
)
OPENINGS = Path(__file__).parent / "openings.tsv"
Change = Callable[[tuple[Message, ...]], Sequence[Message]]


def _last(change: Callable[[str], str]) -> Change:
    return lambda messages: (*messages[:-1], Message.of("user", change(messages[-1].text)))


CHANGES: dict[str, Change] = {
    "a greeting before": _last(lambda text: f"Hello!\n\n{text}"),
    "thanks after": _last(lambda text: f"{text}\n\nThanks in advance!"),
    "regards after": _last(lambda text: f"{text}\n\nLet me know if anything is unclear.\n\nBest regards,\nTom"),
    "a plain system message": lambda messages: (Message.of("system", "You are a helpful assistant."), *messages),
    "an earlier small-talk turn": lambda messages: (
        Message.of("user", "Hi, how are you?"),
        Message.of("assistant", "Fine, thank you. How can I help?"),
        *messages,
    ),
    "doubled spaces": _last(lambda text: text.replace(" ", "  ")),
    "CRLF": _last(lambda text: text.replace("\n", "\r\n")),
    "quotes around it": _last(lambda text: f'"{text}"'),
    "lower case": _last(str.lower),
    "trailing spaces": _last(lambda text: f"{text}   \n"),
    "a final please": _last(lambda text: f"{text} please"),
}

_LONG = 500_000
HOSTILE = {
    "one letter": "a" * _LONG,
    "digits": "7" * _LONG,
    "spaces": "x" + " " * _LONG + "x",
    "line ends": "\n" * _LONG,
    "quotation marks": '"' * _LONG,
    "brackets": "[(" * (_LONG // 2),
    "letters and signs": "a;" * (_LONG // 2),
    "CJK": "证明" * (_LONG // 2),
    "combining marks": "e" + "\u0301" * _LONG,
    "lone surrogates": "\ud800" * _LONG,
    "option letters": "a) " * (_LONG // 3),
}


FOLDS = 12


def fold_of(example: Example) -> int:
    """Number the fold that holds an example: a style or a language of our own is never parted."""
    return sum(map(ord, example.group)) % FOLDS


def left_out(examples: Sequence[Example]) -> list[int]:
    """Predict each example by weights that were fitted without its fold."""
    rows = [features(example.messages, example.system) for example in examples]
    labels = [KINDS.index(example.label) for example in examples]
    folds = [fold_of(example) for example in examples]
    predicted = [0] * len(examples)
    for fold in sorted(set(folds)):
        kept = [number for number, name in enumerate(folds) if name != fold]
        table = fit([rows[n] for n in kept], [labels[n] for n in kept], weights_of([examples[n] for n in kept]))
        for number, name in enumerate(folds):
            if name == fold:
                predicted[number] = guess(table, rows[number])
    return predicted


def guess(table: dict[str, list[float]], row: dict[str, float]) -> int:
    """Return the number of the kind with the greatest sum."""
    sums = list(table["bias"])
    for name, value in row.items():
        for kind, weight in enumerate(table.get(name, ())):
            sums[kind] += weight * value
    return max((0, 1, 2), key=lambda kind: (sums[kind], kind == 1))


def share(part: int, whole: int) -> str:
    """Render a share in percent with its 95 % interval (Wilson's), or a dash where there is nothing to share."""
    if not whole:
        return f"{'-':>16}"
    p, z = part / whole, 1.96
    middle = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    reach = z * (p * (1 - p) / whole + z * z / (4 * whole * whole)) ** 0.5 / (1 + z * z / whole)
    return f"{100 * p:5.1f} ({100 * max(middle - reach, 0.0):4.1f}-{100 * (middle + reach):5.1f})"


def report(name: str, pairs: Sequence[tuple[int, int]]) -> None:
    """Print accuracy, macro-F1, and the two errors that cost: hard work sent to `fast`, easy work sent dearer."""
    scores = []
    for kind in sorted({label for label, _ in pairs}):
        right = sum(a == b == kind for a, b in pairs)
        scores.append(2 * right / (sum(a == kind for a, _ in pairs) + sum(b == kind for _, b in pairs)))
    hard = [b for a, b in pairs if a]
    easy = [b for a, b in pairs if not a]
    same = share(sum(a == b for a, b in pairs), len(pairs))
    lost, dear = share(hard.count(0), len(hard)), share(len(easy) - easy.count(0), len(easy))
    print(f"{name:30} {len(pairs):5} {same} {100 * sum(scores) / len(scores):6.1f} {lost} {dear}")


def measure_labels(others: list[Example]) -> None:
    """Print how often the alias is the label: others' requests, which were never fitted on, and ours, folds left out."""
    columns = f"{'n':>5} {'same %':>16} {'F1 %':>6} {'hard→fast %':>16} {'easy→dear %':>16}"

    def part(name: str, examples: Sequence[Example], pairs: Sequence[tuple[int, int]], chosen: set[str]) -> None:
        found = [pair for example, pair in zip(examples, pairs, strict=True) if example.group in chosen]
        if found:
            report(name, found)

    if others:
        print(f"{'never fitted on':30} {columns}")
        seen = [
            (KINDS.index(example.label), KINDS.index(classify(example.messages, example.system).alias))
            for example in others
        ]
        groups = {example.group for example in others}
        part("others' requests", others, seen, groups)
        for source in sorted({source_of(group) for group in groups}):
            part(f"  {source}", others, seen, {group for group in groups if source_of(group) == source})
        part("  in groups not all English", others, seen, {e.group for e in others if e.language != "en"})
        part("  puzzles and sums", others, seen, {group for group in groups if group.startswith(PUZZLES)})
        print()
    print(f"{'fold left out':30} {columns}")
    ours = our_examples()
    pairs = list(zip((KINDS.index(example.label) for example in ours), left_out(ours), strict=True))
    groups = {example.group for example in ours}
    english = {group for group in groups if group.startswith(ENGLISH)}
    own = {group for group in groups if group.startswith("own:")}
    part("our own, English styles", ours, pairs, english)
    part("our own, other languages", ours, pairs, own - english)
    part("  puzzles and sums", ours, pairs, {group for group in groups if group.startswith(OUR_PUZZLES)})
    part("easy tasks around hard texts", ours, pairs, {group for group in groups if group.startswith("wrap:")})
    part("tasks around long plain texts", ours, pairs, {group for group in groups if group.startswith("around:")})


def openings() -> list[tuple[str, str]]:
    """Read the paragraphs that ask for nothing: each with its language."""
    lines = OPENINGS.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t", 1) for line in lines if line and not line.startswith("# ")]
    return [(language, text) for language, text in pairs]


def measure_changes(examples: Sequence[Example]) -> None:
    """Print how often harmless changes leave the alias alone: some, and each opening paragraph."""
    plain = [classify(example.messages, example.system).alias for example in examples]

    def same(change: Change) -> float:
        found = [
            classify(change(example.messages), example.system).alias == alias
            for example, alias in zip(examples, plain, strict=True)
        ]
        return 100 * sum(found) / len(found)

    print("\nsame alias after a harmless change")
    shares = {name: same(change) for name, change in CHANGES.items()}
    for name, value in shares.items():
        print(f"  {name:44} {value:6.1f} %")
    print(f"  {'mean':44} {sum(shares.values()) / len(shares):6.1f} %")
    opened = [(same(_last(f"{text}\n\n{{}}".format)), f"{language}: {text}") for language, text in openings()]
    print(f"\nsame alias after an opening paragraph, {len(opened)} of them")
    print(f"  {'mean':44} {sum(value for value, _ in opened) / len(opened):6.1f} %")
    for value, name in sorted(opened)[:3]:
        print(f"  least, {name:37} {value:6.1f} %")


def recovered(scores: Sequence[float], weak: Sequence[float], strong: Sequence[float]) -> float:
    """Return RouteLLM's APGR: the gap between two models that is closed, averaged over how many go to the strong one.

    Half is chance: ties share what they gain.
    """
    gains: dict[float, list[float]] = {}
    for score, low, high in zip(scores, weak, strong, strict=True):
        gains.setdefault(score, []).append(high - low)
    total = closed = area = 0.0
    for score in sorted(gains, reverse=True):
        gain = sum(gains[score])
        area += len(gains[score]) * (closed + gain / 2)
        closed, total = closed + gain, total + gain
    return area / (total * len(scores))


def measure_outcomes(files: Sequence[Path]) -> None:
    """Print how well the score orders questions by what a strong model wins over a weak one, beside their length."""
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    print("\nscore against outcomes (APGR, .5 is chance)     n   score  length")
    for name in sorted({row["benchmark"] for row in rows}):
        mine = [row for row in rows if row["benchmark"] == name]
        weak, strong = [row["weak"] for row in mine], [row["strong"] for row in mine]
        scores = [classify([Message.of("user", row["prompt"])]).score for row in mine]
        lengths = [float(len(row["prompt"])) for row in mine]
        print(
            f"  {name:43} {len(mine):5} {recovered(scores, weak, strong):7.3f} {recovered(lengths, weak, strong):7.3f}"
        )


def microseconds(call: Callable[[], object], rounds: int) -> float:
    """Return the least mean time of five batches."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(rounds):
            call()
        best = min(best, (time.perf_counter() - start) / rounds)
    return best * 1e6


def _competitor() -> Callable[[str], object] | None:
    """LiteLLM's complexity router as a function of the prompt, or None where it is not installed."""
    try:
        module = importlib.import_module("litellm.router_strategy.complexity_router.complexity_router")
        logging.disable(logging.WARNING)
        router = module.ComplexityRouter("auto", None, derive_savings_baseline=False)
    except ImportError:
        return None
    judge: Callable[[str], object] = router.classify
    return judge


def measure_speed() -> None:
    """Print times at several lengths, for plain and hostile texts, beside LiteLLM's router where it is installed."""
    english = [e.messages[-1].text for e in own_examples() if e.group.startswith("own:en:")]
    short = [text for text in english if 150 <= len(text) <= 250][:20]
    prose = " ".join(english) * 20

    def ours(text: str) -> Callable[[], object]:
        message = [Message.of("user", text)]
        return lambda: classify(message)

    classify([Message.of("user", "warm up")])
    size = sum(map(len, short)) / len(short)
    judge = _competitor()
    mine, theirs = 0.0, 0.0
    for text in short:  # in turns, so that a slow minute of the machine is slow for both
        mine += microseconds(ours(text), 50) / len(short)
        if judge is not None:
            theirs += microseconds(lambda text=text: judge(text), 20) / len(short)  # type: ignore[misc]
    print(f"\ntime, {size:.0f} characters           {mine:9.1f} µs")
    if judge is None:
        print("  LiteLLM is not installed: nothing to compare with")
    else:
        print(f"  LiteLLM's complexity router     {theirs:9.1f} µs, ours takes {mine / theirs:.2f} of it (bar .20)")
    turns = [(microseconds(ours(prose[:20_000]), 10), microseconds(ours(prose[:_LONG]), 10)) for _ in range(4)]
    at_20k, at_500k = (min(times) for times in zip(*turns, strict=True))
    print(f"time, 20 000 characters          {at_20k:9.1f} µs")
    print(f"time, 500 000 characters         {at_500k:9.1f} µs, {at_500k / at_20k:.2f} × (bar 1.5)")
    for name, text in HOSTILE.items():
        taken = microseconds(ours(text), 5)
        print(f"  hostile, {name:22} {taken:9.1f} µs, {taken / at_500k:.2f} × (bar 3)")
    code = (
        "import time, floop_gateway_core.types; start = time.perf_counter()\n"
        "import floop_gateway_core.policy.auto.classify\nprint(1000 * (time.perf_counter() - start))"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)
    ]
    cues.cache_clear()
    start = time.perf_counter()
    cues()
    reading = 1000 * (time.perf_counter() - start)
    print(f"import {min(runs):.1f} ms (bar 20); reading the cue table at the first use {reading:.1f} ms")
    folder = Path(__file__).parents[1] / "floop_gateway_core" / "policy" / "auto" / "tables"
    sizes = sum((folder / name).stat().st_size for name in ("cues.json", "classify.json"))
    print(f"tables {sizes} bytes (bar 64 kB)")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the auto classifier.")
    parser.add_argument("folders", type=Path, nargs="*", help="folders of data with routes.jsonl")
    options = parser.parse_args(arguments)
    folders = [folder for folder in options.folders if (folder / "routes.jsonl").is_file()]
    if not folders:
        print("There is no folder with a routes.jsonl: only our own requests are measured.\n")
    others = [example for folder in folders for example in routes(folder)]
    measure_labels(others)
    measure_changes(others + own_examples())
    outcomes = [folder / "outcomes.jsonl" for folder in options.folders if (folder / "outcomes.jsonl").is_file()]
    if outcomes:
        measure_outcomes(outcomes)
    measure_speed()
    return 0


if __name__ == "__main__":
    sys.exit(main())
