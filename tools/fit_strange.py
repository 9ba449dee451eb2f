# mypy: disable-error-code="import-not-found,no-any-return"
"""Fit the costs of letter sequences that occur in no language, and add them to the estimator's table.

    python -m tools.fit_strange FOLDER TEXTS [TEXTS ...] [--table TABLE.zip]

FOLDER holds `letters.jsonl` and `blanks.jsonl`, which `make_token_truth.py` makes (`letters=letters blanks=blanks`).
TEXTS are folders of living text: translations, messages, the declaration of human rights. Run it after
`fit_estimate.py`, whose classes it keeps. The same folders give the same table. Needs numpy; the library does not.

Theory: `strange.py` in `policy/tokens`. Which letter follows which is counted on whole files. What a letter costs among
letters at random is the mean over the places that the library itself sets apart, class by class.
"""

import argparse
import gzip
import json
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from floop_gateway_core.policy.tokens.estimate import VOCABULARIES
from floop_gateway_core.policy.tokens.tables import UNIT
from tools.estimate_model import GROUPS, Bytes, Floats, Ints, Row
from tools.fit_estimate import TARGET, figures_bytes, write_archive
from tools.make_token_truth import read_texts
from tools.synthetic_texts import RUN

# Groups of `estimate_model`. Of Han and of symbols anything may follow anything; ASCII has its triples of letters.
SCRIPTS = (
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA",
    "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "HANGUL",
    "ETHIOPIC", "KHMER", "KANA", "MARK", "CJKP", "OTHER",
)  # fmt: skip
# A pair counts as known if its share of all pairs of the script reaches the first figure (for languages with many
# files), or its share of one file reaches the second (for languages with only a few). Rounder figures would accept
# random letters (Cyrillic's many languages use nearly every pair of its few letters) or flag real words (syllabic
# scripts have many more pairs, each rarer, and no language with too few files).
SHARE = 1e-4, 5e-4
SHARES = {
    "CYRILLIC": (7e-4, 3e-3),
    "ETHIOPIC": (3e-5, 5e-4),
    "HANGUL": (2e-5, 1.0),
    "KANA": (2e-5, 1.0),
    "OTHER": (1.0, 1.5e-3),
}
FILE_TIMES, FILE_LETTERS = 3, 3000
NEAR, NEEDED = 16, 4  # as in the library: four strange pairs among sixteen characters
PAGE = 1 << 16
STEPS = 10  # a letter's cost is rounded to tenths of a token, which packs better


class Pages:
    """Which page of pairs each character is on, by the table's own classes."""

    def __init__(self, characters: bytes, kinds: bytes) -> None:
        groups = list(GROUPS)
        self.of_class = np.zeros(256, np.uint8)
        for code, kind in enumerate(kinds):
            name = groups[kind - 128] if kind >= 128 else "LATIN" if kind == 1 and code >= 128 else ""
            if name in SCRIPTS:
                self.of_class[code] = 1 + SCRIPTS.index(name)
        self.classes = np.zeros(0x110000, np.uint8)
        self.classes[: len(characters)] = np.frombuffer(characters, np.uint8)

    def look(self, text: str) -> tuple[Bytes, Bytes, Ints]:
        """Return the class, the page and the pair of each character."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        classes = self.classes[codes]
        pages = self.of_class[classes]
        letters = (codes & 255).astype(np.int32)
        before = np.where(pages[1:] == pages[:-1], letters[:-1], 0)
        pairs = pages.astype(np.int32) * PAGE + letters
        pairs[1:] += before << 8
        return classes, pages, pairs


def living(folders: list[Path]) -> Iterator[str]:
    """Yield whole texts that people wrote for people: pages, manuals, catalogues of messages, lists of words."""
    for root in folders:
        for path in sorted(root.rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            place = "/" + path.relative_to(root).as_posix()
            if path.name.endswith(".msgpack.gz"):
                yield words_of(path)
            elif path.suffix == ".dic":
                yield "\n".join(line.partition("/")[0] for line in path.read_text("utf-8", "replace").splitlines())
            elif path.suffix in (".mo", ".po", ".json", ".html", ".txt", ".page") or "/man/" in place:
                for extension, text in read_texts(path, place):
                    if extension in ("mo", "txt", "page", "man") and not text.isascii():
                        yield text


def words_of(path: Path) -> str:
    """Return a list of PyPI's `wordfreq` as a text that has each word as often as it occurs in a million; needs msgpack.

    The list's first entry is about itself; the nth after it holds the words of a frequency of 10 to the -n/100.
    """
    import msgpack

    _, *bins = msgpack.unpackb(gzip.decompress(path.read_bytes()), raw=False)
    words = [word for n, some in enumerate(bins) for word in some for _ in range(round(10 ** (6 - n / 100)))]
    random.Random(path.name).shuffle(words)
    return ("" if path.name.endswith("_ja.msgpack.gz") else " ").join(words)


def known_pairs(pages: Pages, folders: list[Path]) -> Bytes:
    """Return a bit for each pair of letters, page by page."""
    size = (1 + len(SCRIPTS)) * PAGE
    count, in_a_file = np.zeros(size, np.int64), np.zeros(size)
    for text in living(folders):
        _, page, pair = pages.look(text)
        found, times = np.unique(pair[page > 0], return_counts=True)
        count[found] += times
        letters = np.bincount(found // PAGE, weights=times, minlength=1 + len(SCRIPTS))[found // PAGE]
        share = np.where((letters >= FILE_LETTERS) & (times >= FILE_TIMES), times / letters, 0)
        in_a_file[found] = np.maximum(in_a_file[found], share)
    known = np.zeros(size, bool)
    for number, name in enumerate(SCRIPTS, 1):
        mine = slice(number * PAGE, (number + 1) * PAGE)
        total, (of_all, of_file) = count[mine].sum(), SHARES.get(name, SHARE)
        known[mine] = (count[mine] >= max(2, of_all * total)) | (in_a_file[mine] >= of_file)
        print(f"{name.ljust(12)} {total:9} letters, {known[mine].sum():5} pairs")
    return np.packbits(known[PAGE:], bitorder="little")


def set_apart(pages: Pages, known: Bytes, text: str) -> tuple[Bytes, Bytes]:
    """Return the class of each character, and where the library sets letters apart."""
    strange = np.concatenate([np.zeros(PAGE, np.uint8), 1 - np.unpackbits(known, bitorder="little")])
    classes, page, pair = pages.look(text)
    near = np.convolve(strange[pair], np.ones(NEAR, np.int64))[: len(pair)]
    return classes, (near >= NEEDED) & ((page > 0) | (classes == ord(" ")))


def alone(pages: Pages, known: Bytes, rows: list[Row]) -> Floats:
    """Return what a letter of each class, and a space, costs among letters at random.

    A class that was never met there costs what its page does.
    """
    cost, count = np.zeros((256, len(VOCABULARIES))), np.zeros((256, 1))
    for row in rows:
        classes, apart = set_apart(pages, known, row["text"])
        starts = np.stack([np.frombuffer(row["starts"][v].encode(), np.uint8) - 48.0 for v in VOCABULARIES], 1)
        np.add.at(cost, classes[apart], starts[apart])
        np.add.at(count, classes[apart], 1)
    found = cost / np.maximum(count, 1)
    for page in range(1, 1 + len(SCRIPTS)):
        mine = pages.of_class == page
        found[mine & (count[:, 0] == 0)] = cost[mine].sum(0) / max(1, count[mine].sum())
    return np.round(found * STEPS) / STEPS


def blanks(rows: list[Row]) -> tuple[Ints, Floats]:
    """Return the blanks, and what a further one costs in a run of each: the second half of a run, without its beginning."""
    costs = [[sum(map(int, row["starts"][v][RUN // 2 :])) / (RUN // 2) for v in VOCABULARIES] for row in rows]
    return np.array([ord(row["text"][0]) for row in rows]), np.array(costs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--table", type=Path, default=TARGET)
    arguments = parser.parse_args()
    for folder in (arguments.folder, *arguments.texts):
        if not folder.is_dir():
            print(f"no folder {folder}", file=sys.stderr)
            return 2
    rows = {
        name: [json.loads(line) for line in (arguments.folder / f"{name}.jsonl").open(encoding="utf-8")]
        for name in ("letters", "blanks")
    }
    with zipfile.ZipFile(arguments.table) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    pages = Pages(files["characters"], files["views"][256:512])
    known = known_pairs(pages, arguments.texts)
    codes, costs = blanks(rows["blanks"])
    files["views"] = files["views"][:1024] + pages.of_class.tobytes()
    files |= {"known": known.tobytes(), "alone": figures_bytes(alone(pages, known, rows["letters"]) * UNIT)}
    files |= {"blanks": figures_bytes(codes), "blanks.costs": figures_bytes(costs * UNIT)}
    write_archive(arguments.table, files)
    print(f"{arguments.table}: {arguments.table.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
