"""Print how near the token estimator comes, and how fast it is, beside chars/4 and (where installed) tiktoken.

    python -m benchmarks.estimate FOLDER [--vocabulary o200k]

FOLDER holds `*.jsonl`: one JSON object a line with `kind`, `text` and `counts` (true tokens for each vocabulary).
Truth for the hostile texts comes from tiktoken, so only o200k and cl100k have it. Point TIKTOKEN_CACHE_DIR at a
folder with its files where there is no network.
"""

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from floop_gateway_core.policy.tokens.estimate import VOCABULARIES, TokenEstimate, estimate_tokens
from tools.synthetic_texts import at_random, blank_texts, letters_of_scripts

LONG = 500_000
Count = Callable[[str], object]
Row = dict[str, object]


def hostile_texts(size: int) -> dict[str, str]:
    """Make texts meant to be slow or to be under-estimated, of `size` characters; always the same."""
    chance = random.Random(20)

    def many(*spans: tuple[int, int]) -> str:
        return "".join(chr(chance.randrange(*chance.choice(spans))) for _ in range(size))

    prose = "It was a cheap text with nothing in it that costs much. "
    dense = many((0xE000, 0xF8FF))[: size // 20]
    half = (prose * (size // len(prose) + 1))[: size // 2]
    return {
        "one letter": "a" * size,
        "one space": " " * size,
        "newlines": "\n" * size,
        "alternating": "a1" * (size // 2),
        "alternating case": "aB" * (size // 2),
        "random Unicode": many((0x20, 0xD7FF), (0xE000, 0x2FFFF)),
        "random scripts": many((0x370, 0x1100), (0x1780, 0x1900), (0x3041, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4)),
        "private use": many((0xE000, 0xF8FF)),
        "astral private": many((0xF0000, 0xFFFFD)),
        "stacked marks": many((0x300, 0x36F)),
        "base64-like": "".join(
            chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=size)
        ),
        "random lower case": "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=size)),
        "digits": "".join(chance.choices("0123456789", k=size)),
        "punctuation": "".join(chance.choices("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", k=size)),
        "one dash": "-" * size,
        "emoji": many((0x1F300, 0x1F650)),
        "hidden dense": half + dense + half,
    }


def strange_texts(size: int) -> dict[str, str]:
    """Make letters of each script at random, joined and spaced, and a run of each blank; always the same."""
    texts = {}
    for script, letters in letters_of_scripts().items():
        for spaced in (False, True):
            chance = random.Random(f"benchmark/{script}")
            texts[f"{script.lower()}{', spaced' if spaced else ''}"] = at_random(chance, letters, size, spaced)
    return texts | {f"{sub} U+{ord(text[0]):04X}": text[:1] * size + " word" for _, _, sub, text in blank_texts()}


def load_tiktoken(vocabulary: str) -> Callable[[str], int] | None:
    try:
        import tiktoken

        encoding = tiktoken.get_encoding({"cl100k": "cl100k_base"}.get(vocabulary, "o200k_base"))
    except Exception as error:
        print(f"without tiktoken: {error}")
        return None
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def read(folder: Path) -> list[Row]:
    rows = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    return [row for row in rows if "counts" in row and row["kind"] not in ("hostile", "characters", "runs")]


def accuracy(rows: Sequence[Row]) -> None:
    names = [*VOCABULARIES, "chars/4"]
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    ratios: dict[str, list[float]] = defaultdict(list)
    large: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        text, counts, kind = str(row["text"]), row["counts"], str(row["kind"])
        assert isinstance(counts, dict)
        for name in names:
            truth = max(1, counts["o200k" if name == "chars/4" else name])
            found = TokenEstimate(len(text) // 4, len(text)) if name == "chars/4" else estimate_tokens(text, name)
            error = abs(found.expected / truth - 1)
            errors[kind][name].append(error)
            ratios[name].append(found.upper / truth)
            if truth >= 100:
                large[name].append(error)
    print("error of `expected`, %".ljust(24), *(name[:8].rjust(8) for name in names))
    for kind, found_errors in sorted(errors.items()):
        print(kind.ljust(24), *(f"{100 * mean(found_errors[name]):8.1f}" for name in names))
    print("mean of the kinds".ljust(24), *(f"{100 * mean([mean(e[n]) for e in errors.values()]):8.1f}" for n in names))
    print(
        "95th percentile >= 100".ljust(24),
        *(f"{100 * sorted(large[n])[int(0.95 * len(large[n]))]:8.1f}" if large[n] else "-".rjust(8) for n in names),
    )
    print("upper >= truth, %".ljust(24), *(f"{100 * mean([float(r >= 1) for r in ratios[n]]):8.1f}" for n in names))
    print("upper / truth".ljust(24), *(f"{mean(ratios[n]):8.2f}" for n in names))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def seconds(work: Count, texts: Sequence[str], rounds: int = 3) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for text in texts:
            work(text)
        best = min(best, time.perf_counter() - start)
    return best


def hostile(vocabulary: str, count: Callable[[str], int] | None) -> None:
    errors, safe = [], []
    print(f"\nhostile texts of 5 000 characters, {vocabulary}".ljust(40), "truth expected  upper")
    for name, text in (hostile_texts(5000) | strange_texts(5000)).items():
        found = estimate_tokens(text, vocabulary)
        truth = count(text) if count else 0
        print(name.ljust(39), f"{truth or '-':>6} {found.expected:8} {found.upper:6}")
        if truth:
            errors.append(abs(found.expected / truth - 1))
            safe.append(float(found.upper >= truth))
    if errors:
        print(f"mean error {100 * mean(errors):.1f} %, upper >= truth {100 * mean(safe):.0f} %")


def speed(rows: Sequence[Row], vocabulary: str, count: Callable[[str], int] | None) -> None:
    def estimate(text: str) -> TokenEstimate:
        return estimate_tokens(text, vocabulary)

    texts = [str(row["text"]) for row in rows if 400 <= len(str(row["text"])) <= 20_000]
    order = random.Random(7).sample(texts, len(texts))
    joined = ("".join(order) * (1 + LONG // sum(map(len, order))))[:LONG]
    print("\nspeed, MB/s".ljust(25), "estimator  tiktoken  ratio")
    for name, found in (("400 to 20 000 characters", texts), ("500 000 characters", [joined])):
        size = sum(len(text.encode()) for text in found) / 1e6
        ours = size / seconds(estimate, found)
        theirs = size / seconds(count, found) if count else float("nan")
        print(name.ljust(24), f"{ours:9.1f} {theirs:9.1f} {ours / theirs:6.2f}")
    whole = estimate(joined)
    if count:
        truth = count(joined)
        print(f"500 000 joined: truth {truth}, expected {whole.expected}, upper {whole.upper}")
    prose = ("Call me what you like, said the old man, but do call me before the tea is cold. " * 7000)[:LONG]
    plain = seconds(estimate, [prose])
    print(f"500 000 of prose: {1000 * plain:.1f} ms; hostile, as multiples of it:")
    for name, text in hostile_texts(LONG).items():
        print("  " + name.ljust(22), f"{seconds(estimate, [text]) / plain:5.2f}")
    print("doubling the length, worst of 1 000 to 512 000 characters:")
    for name, text in {"prose": prose, "joined": joined}.items():
        times = [seconds(estimate, [text[: 1000 * 2**i]] * (20 if i < 6 else 3)) for i in range(10)]
        times = [t / (20 if i < 6 else 3) for i, t in enumerate(times)]
        print("  " + name.ljust(22), f"{max(b / a for a, b in pairwise(times)):5.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--vocabulary", choices=("o200k", "cl100k"), default="o200k", help="for speed and hostile texts"
    )
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        print(f"no folder {arguments.folder}", file=sys.stderr)
        return 2
    rows = read(arguments.folder)
    if not rows:
        print(f"no texts with counts in {arguments.folder}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    estimate_tokens("x", arguments.vocabulary)
    print(f"{len(rows)} texts; the table is read in {1000 * (time.perf_counter() - start):.0f} ms")
    accuracy(rows)
    count = load_tiktoken(arguments.vocabulary)
    hostile(arguments.vocabulary, count)
    speed(rows, arguments.vocabulary, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
