# ruff: noqa: E501, SIM905
"""Make texts of the kinds that nobody publishes: keys, logs, tables, numbers, rules, chat, and hostile ones.

They are seeded: the same at every run. Every word in them is this file's own.
"""

import base64
import json
import random
import string
import unicodedata
from collections.abc import Callable, Iterator

WORDS = """
account action address agent amount answer array async balance batch billing blue body branch buffer build cache call
cancel change check city class client close code color column commit config content context count create credit
current customer data date debug default delete delivery deploy detail device disk done draft edit email empty error
event example failed false field file filter final find first fixed folder format friend from full gateway get good
great group handler hash hello help hidden host hour image index info input invoice item job join key label language
large last later length level limit line link list live local login long main manager market meeting memory menu
message method minute model module month morning move name network never new next night node note number object offer
office online open option order origin output owner page paid panel parent party password path payment people phone
place plan please point policy port post price print product project query queue quick random rate reason record
region release remote report request reset result retry review road role room route rule running sample save scale
search second send server service session shop short size sleep small source start state status step stock store
street string support sure system table target task team test text thanks thread ticket time title today token
tomorrow total trace train tree true type update upload user value version view wait walk warning water week where
width window work world write year yesterday zone
""".split()
NAMES = """
Anna Müller José Zoë Nguyen Łukasz Chen O'Brien Smith Patel Ivanov Sørensen García Kim Novák Rossi
""".split()
HOSTS = ["example.org", "api.example.net", "shop.example.com", "files.test", "cdn.host.io", "dev.internal.example"]
EMOJI = [chr(c) for a, b in ((0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF)) for c in range(a, b)]
FACES = [*list("😀😂🙏❤👍🎉🔥✅🚀😊🙂😅⚠🤔💡⭐❌📝🐛🛠"), "❤️", "👍🏽", "👩\u200d💻", "🇩🇪", "⚠️"]
SYMBOLS = "→←↑↓⇒∀∃∈∉∑∏∫√∞≈≠≤≥±×÷°•…—–“”‘’«»¿¡§¶†‡©®™€£¥½¼²³αβγδεθλμπσφψωΓΔΘΛΞΠΣΦΨΩ①②③★☆♥♦♣♠■□▲△●○✓✗"
MATHS = """
alpha beta gamma delta epsilon theta lambda mu sigma phi omega mathbb{R} infty partial nabla ell
""".split()


def _word(c: random.Random) -> str:
    return c.choice(WORDS)


def _sentence(c: random.Random) -> str:
    words = [_word(c) for _ in range(c.randrange(3, 14))]
    return words[0].capitalize() + " " + " ".join(words[1:]) + c.choice(".?!")


def _hex(c: random.Random, n: int) -> str:
    return f"{c.getrandbits(4 * n):0{n}x}"


def _uuid(c: random.Random) -> str:
    digits = _hex(c, 32)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _b64(c: random.Random, n: int, url: bool = False) -> str:
    raw = c.randbytes(n)
    return (base64.urlsafe_b64encode(raw) if url else base64.b64encode(raw)).decode()


def _stamp(c: random.Random) -> str:
    date = f"{c.randrange(1950, 2031)}-{c.randrange(1, 13):02}-{c.randrange(1, 29):02}"
    clock = f"{c.randrange(24):02}:{c.randrange(60):02}:{c.randrange(60):02}"
    return c.choice((date, f"{date} {clock}", f"{date}T{clock}Z", f"{date} {clock},{c.randrange(1000):03}", clock[:5]))


def _ip(c: random.Random) -> str:
    return ".".join(str(c.randrange(1, 255)) for _ in range(4))


def _path(c: random.Random) -> str:
    parts = [c.choice((_word(c), f"{_word(c)}_{_word(c)}", f"{_word(c)}-{c.randrange(99)}")) for _ in range(4)]
    return "/" + "/".join(parts[: c.randrange(1, 5)]) + c.choice(("", ".py", ".html", ".json", "/", ".tar.gz"))


def _url(c: random.Random) -> str:
    query = "&".join(f"{_word(c)}={c.choice((_word(c), str(c.randrange(999)), '%20a', _hex(c, 8)))}" for _ in range(3))
    return f"https://{c.choice(HOSTS)}{_path(c)}" + c.choice(("", f"?{query}", f"#{_word(c)}"))


def _identifier(c: random.Random) -> str:
    words = [_word(c) for _ in range(c.randrange(1, 5))]
    camel = "".join(w.capitalize() for w in words)
    return c.choice((camel, camel[0].lower() + camel[1:], "_".join(words), "_".join(words).upper(), "-".join(words)))


def _log(c: random.Random) -> str:
    level = c.choice(("INFO", "WARN", "ERROR", "DEBUG", "info", "[notice]"))
    return c.choice((
        f"{_stamp(c)} {level} [{_identifier(c)}] {_sentence(c)} id={_uuid(c)}",
        f'{_ip(c)} - - [{c.randrange(1, 29)}/Mar/2024:{c.randrange(24)}:10:59 +0000] "GET {_path(c)} HTTP/1.1" '
        f'{c.choice((200, 301, 404, 500))} {c.randrange(99999)} "-" "Mozilla/5.0 (X11; Linux x86_64)"',
        f"{_stamp(c)} {_word(c)}[{c.randrange(99999)}]: {_sentence(c)}",
        f'{{"ts":"{_stamp(c)}","level":"{level}","msg":"{_sentence(c)}","ms":{c.uniform(0, 999):.2f}}}',
        f'  File "/usr/lib/python3{_path(c)}", line {c.randrange(999)}, in {_identifier(c)}\n    {_identifier(c)}()',
        f"\tat com.example.{_word(c)}.{_word(c).capitalize()}({_word(c).capitalize()}.java:{c.randrange(999)})",
        f"[{c.uniform(0, 9999):.6f}] {_word(c)} {c.randrange(9)}-{c.randrange(9)}: {_sentence(c)} 0x{_hex(c, 8)}",
    ))  # fmt: skip


def _record(c: random.Random) -> dict[str, object]:
    return {
        "id": c.choice((c.randrange(10**6), _uuid(c))), _word(c): _sentence(c), _identifier(c): c.random(),
        "name": c.choice(NAMES), "tags": [_word(c) for _ in range(c.randrange(4))], "created_at": _stamp(c),
        _word(c): {_word(c): c.choice((True, False, None)), _word(c): [c.randrange(999) for _ in range(3)]},
    }  # fmt: skip


def _json(c: random.Random) -> str:
    rows = [_record(c) for _ in range(c.randrange(2, 6))]
    return json.dumps(rows, indent=c.choice((None, 2, 4)), ensure_ascii=c.random() < 0.5) + "\n"


def _yaml(c: random.Random) -> str:
    return (
        f"{_word(c)}:\n  {_identifier(c)}: {c.choice((_word(c), c.randrange(9999)))}\n  image: {c.choice(HOSTS)}/"
        f"{_word(c)}:{c.randrange(9)}.{c.randrange(20)}.{c.randrange(20)}\n  env:\n    - {_word(c).upper()}={_url(c)}\n"
    )


def _csv(c: random.Random, sep: str) -> str:
    number = f"{c.uniform(0, 10000):.2f}"
    fields = [str(c.randrange(9999)), c.choice(NAMES), f"{_word(c)}{c.randrange(999)}@{c.choice(HOSTS)}", number]
    return sep.join([*fields, c.choice(("EUR", "USD", "")), _stamp(c), c.choice(("Y", "N", "0", "NA"))]) + "\n"


def _markdown(c: random.Random) -> str:
    rows = [f"| {_word(c):<12} | {c.randrange(9999):>6} | {_sentence(c)} |" for _ in range(4)]
    lines = ["| a | b | c |", "|---|--:|:--|", *rows, "", f"## {_sentence(c)}", f"- **{_word(c)}**: `{_identifier(c)}`"]
    return "\n".join(lines) + f"\n\n```python\n{_identifier(c)}({_word(c)}={c.randrange(99)})\n```\n\n"


def _latex(c: random.Random) -> str:
    def term() -> str:
        kinds = (
            f"\\frac{{{c.choice('abxyz')}}}{{{c.choice('nmk')}^{c.randrange(9)}}}", f"\\{c.choice(MATHS)}_{{{_word(c)[0]}}}",
            f"{c.choice('xyzuv')}_{c.randrange(30)}", f"\\sqrt{{{c.choice('abc')} + {c.randrange(9)}}}",
            f"\\sum_{{i={c.randrange(3)}}}^{{n}} {c.choice('abc')}_i", f"\\left( {c.choice('pqr')}^2 \\right)",
        )  # fmt: skip
        return c.choice(kinds)

    formula = " + ".join(term() for _ in range(c.randrange(1, 5)))
    return c.choice((
        f"\\begin{{equation}}\n  {formula} = {term()}\n\\end{{equation}}\n", f"Let ${formula}$ be given. {_sentence(c)}\n",
        f"\\section{{{_sentence(c)}}}\\label{{sec:{_word(c)}}}\n{_sentence(c)}~\\cite{{{_word(c)}{c.randrange(2030)}}}\n",
        f"\\item \\textbf{{{_word(c)}}} {_sentence(c)}\n", f"  &\\leq {formula} \\\\\n",
    ))  # fmt: skip


def _html(c: random.Random) -> str:
    return c.choice((
        f'<div class="{_word(c)} {_word(c)}-{c.randrange(9)}"><a href="{_url(c)}">{_sentence(c)}</a></div>\n',
        f'<tr><td>{c.randrange(99)}</td><td style="width:{c.randrange(99)}px">{_word(c)}</td></tr>\n',
        f"<p>{_sentence(c)} <b>{_word(c)}</b> {_sentence(c)}</p>\n", f"<!-- {_sentence(c)} -->\n",
        f'<path d="M{c.randrange(99)} {c.uniform(0, 99):.2f}l{c.uniform(0, 9):.3f}-{c.randrange(9)}z"/>',
    ))  # fmt: skip


def _minified(c: random.Random) -> str:
    a, b, d = (c.choice(string.ascii_letters) for _ in range(3))
    return c.choice((
        f"function {a}({b},{d}){{return {b}.{_identifier(c)}({d}[{c.randrange(9)}])?{a}:{d}||!{c.randrange(2)}}}",
        f"var {a}={b}=>({{...{d},{_word(c)}:{c.randrange(99)}}});", f".{_word(c)}-{a}{{margin:0 .{c.randrange(9)}rem;"
        f"color:#{_hex(c, 6)}}}", f'{a}.exports={{{_word(c)}:"{_word(c)}",{d}:{b}}},', f"if({a}&&{b}!=={d})throw {a}(`{a}`);",
    ))  # fmt: skip


def _sql(c: random.Random) -> str:
    return (
        f"SELECT {_word(c)}_id, COUNT(*) FROM {_identifier(c)} WHERE {_word(c)} >= '{_stamp(c)}' AND {_word(c)} IN "
        f"({c.randrange(99)}, {c.randrange(9999)});\nINSERT INTO {_word(c)} VALUES ({c.randrange(9999)}, '{_word(c)}');\n"
    )


def _diff(c: random.Random) -> str:
    return (
        f"diff --git a{_path(c)} b{_path(c)}\nindex {_hex(c, 7)}..{_hex(c, 7)} 100644\n@@ -{c.randrange(99)},7 +12,9 @@\n"
        f"-    {_identifier(c)} = {_identifier(c)}({_word(c)})\n+    return {_identifier(c)}.{_word(c)}\n {_sentence(c)}\n"
    )


def _chat(c: random.Random) -> str:
    return " ".join(c.choice((_sentence(c), _word(c), c.choice(FACES), c.choice(EMOJI), "lol", "ok!!", "hmm..."))
                    for _ in range(8)) + "\n"  # fmt: skip


def _box(c: random.Random) -> str:
    return f"├{'─' * 14}┼{'─' * 8}┤\n│ {_word(c):<12} │ {c.randrange(9999):>6} │\n" + c.choice(("", "╔═══╗\n", "█▓▒░ "))


def _rule(c: random.Random) -> str:
    mark = c.choice([*list("=-_*#~.+/\\|<>!?$%&@^"), "- ", "* ", "\t", " ", "    ", "=-", "─", "..", "·", "━", "-+"])
    return mark * int(2 ** c.uniform(1, 7)) + "\n"


def _indent(c: random.Random) -> str:
    return c.choice(("\t", " ", "  ", "    ")) * c.randrange(12) + _word(c) + c.choice(("", ";", ":", "  ")) + "\n"


def _columns(c: random.Random) -> str:
    return f"{_word(c):<{c.randrange(10, 50)}}{_word(c):>{c.randrange(6, 30)}}{' ' * c.randrange(20)}\n"


MAKERS: dict[tuple[str, str], Callable[[random.Random], str]] = {
    ("logs", "log"): lambda c: _log(c) + "\n",
    ("high_entropy", "base64"): lambda c: _b64(c, c.randrange(40, 400)) + "\n",
    ("high_entropy", "pem"): lambda c: _b64(c, 48) + "\n",
    ("high_entropy", "hex"): lambda c: _hex(c, c.choice((16, 40, 64, 256))) + c.choice(("\n", "  " + _path(c) + "\n")),
    ("high_entropy", "hexlong"): lambda c: _hex(c, 512),
    ("high_entropy", "HEX"): lambda c: " ".join(_hex(c, 2) for _ in range(16)).upper() + "\n",
    ("high_entropy", "uuid"): lambda c: _uuid(c) + c.choice(("\n", ", ")),
    ("high_entropy", "jwt"): lambda c: "eyJ" + ".".join(_b64(c, 60, True) for _ in range(3)) + "\n",
    ("high_entropy", "data"): lambda c: f"data:image/png;base64,{_b64(c, 200)}",
    ("high_entropy", "ascii"): lambda c: "".join(c.choice(string.printable[:94]) for _ in range(200)),
    ("high_entropy", "letters"): lambda c: "".join(c.choice(string.ascii_lowercase) for _ in range(100)),
    ("high_entropy", "mixed"): lambda c: "".join(c.choices(string.ascii_letters + string.digits, k=24)) + "\n",
    ("high_entropy", "marks"): lambda c: "".join(c.choices(string.punctuation, k=100)),
    ("high_entropy", "cases"): lambda c: "".join(c.choices(string.ascii_letters, k=2)) * 100,
    ("high_entropy", "dna"): lambda c: "".join(c.choices("ACGT", k=60)) + "\n",
    ("high_entropy", "dna-lower"): lambda c: " ".join("".join(c.choices("acgt", k=10)) for _ in range(6)) + "\n",
    ("high_entropy", "protein"): lambda c: "".join(c.choices("ACDEFGHIKLMNPQRSTVWY", k=60)) + "\n",
    ("high_entropy", "names"): lambda c: "".join(c.choices(string.ascii_lowercase, k=c.randrange(3, 12))) + " ",
    ("emoji_symbols", "any"): lambda c: chr(c.randrange(0x1F300, 0x1F650)),
    ("json", "json"): _json,
    ("json", "lines"): lambda c: json.dumps(_record(c), separators=(",", ":")) + "\n",
    ("config", "yaml"): _yaml,
    ("config", "ini"): lambda c: f"[{_word(c)}]\n{_identifier(c)} = {_word(c)}\n# {_sentence(c)}\n",
    ("csv", "csv"): lambda c: _csv(c, ","),
    ("csv", "tsv"): lambda c: _csv(c, "\t"),
    ("csv", "semicolon"): lambda c: _csv(c, ";"),
    ("markdown", "table"): _markdown,
    ("latex", "tex"): _latex,
    ("html_xml", "html"): _html,
    ("minified", "min"): _minified,
    ("code", "sql"): _sql,
    ("code", "diff"): _diff,
    ("emoji_symbols", "chat"): _chat,
    ("emoji_symbols", "emoji"): lambda c: c.choice(EMOJI + FACES) + c.choice(("", "", "", " ")),
    ("emoji_symbols", "symbols"): lambda c: c.choice(SYMBOLS) + c.choice(("", "", " ")),
    ("emoji_symbols", "box"): _box,
    ("emoji_symbols", "status"): lambda c: (
        f"{c.choice(FACES)} {_word(c)}: {_sentence(c)} {c.choice('→…—½•')} {_word(c)}\n"
    ),
    ("numbers", "ints"): lambda c: str(c.randrange(10 ** c.randrange(1, 8))) + c.choice("\t\t\n"),
    ("numbers", "intspace"): lambda c: f"{c.randrange(10 ** c.randrange(1, 6)):>8}" + c.choice(("", "", "\n")),
    ("numbers", "floats"): lambda c: f"{c.uniform(-300, 300):.{c.randrange(1, 9)}f} ",
    ("numbers", "floatlist"): lambda c: f"{c.random():.{c.randrange(1, 17)}f}, ",
    ("numbers", "bigint"): lambda c: str(c.getrandbits(c.randrange(60, 1200))) + "\n",
    ("numbers", "dates"): lambda c: _stamp(c) + c.choice(("\n", ", ")),
    ("numbers", "phones"): lambda c: (
        f"+{c.randrange(1, 99)} ({c.randrange(999):03}) {c.randrange(999):03}-{c.randrange(9999):04}, "
    ),
    ("numbers", "ips"): lambda c: f"{_ip(c)}:{c.randrange(99999)}; ",
    ("urls_identifiers", "urls"): lambda c: _url(c) + "\n",
    ("urls_identifiers", "paths"): lambda c: _path(c) + "\n",
    ("urls_identifiers", "names"): lambda c: _identifier(c) + c.choice(" \n"),
    ("urls_identifiers", "camel"): lambda c: "".join(_word(c).capitalize() for _ in range(3)) + " ",
    ("urls_identifiers", "emails"): lambda c: f"{_word(c)}.{_word(c)}{c.randrange(99)}@{c.choice(HOSTS)}, ",
    ("whitespace", "rules"): _rule,
    ("whitespace", "indent"): _indent,
    ("whitespace", "columns"): _columns,
    ("whitespace", "spaces"): lambda c: _word(c) + c.choice(" \n\t") * int(2 ** c.uniform(1, 9)),
    ("whitespace", "wide"): lambda c: _word(c) + c.choice("\u00a0\u00a0\u2003\u3000"),
    ("whitespace", "runs"): lambda c: c.choice("ax0 \n-=.") * int(2 ** c.uniform(2, 10)),
    ("prose_latin", "upper"): lambda c: _sentence(c).upper() + " ",
    ("prose_latin", "english"): lambda c: _sentence(c) + " ",
}


def synthetic_texts(each: int = 8) -> Iterator[tuple[str, str, str, str]]:
    """Yield (id, kind, sub, text): `each` texts of every kind, of 80 to 4 000 characters."""
    for (kind, sub), make in MAKERS.items():
        for number in range(each):
            chance = random.Random(f"{kind}/{sub}/{number}")
            length = int(2 ** chance.uniform(6.4, 12))
            text = ""
            while len(text) < length:
                text += make(chance)
            yield f"{kind}/{sub}/{number}", kind, sub, text[:length]


def _random_character(c: random.Random) -> str:
    """Return an assigned character: of any plane, or of one of the scripts that texts are written in."""
    while True:
        low, high = c.choice(
            ((0x80, 0x250), (0x300, 0x370), (0x370, 0x530), (0x530, 0x1100), (0x1100, 0x2000), (0x2000, 0x2C00),
             (0x2C00, 0x3100), (0x3400, 0x4E00), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7A4), (0xE000, 0xF900),
             (0xF900, 0x10000), (0x10000, 0x11000), (0x11000, 0x20000), (0x1F000, 0x1FB00), (0x20000, 0x30000),
             (0xF0000, 0xF1000))
        )  # fmt: skip
        character = chr(c.randrange(low, high))
        if unicodedata.category(character) not in ("Cn", "Cs"):
            return character


# First and last code points of what random letters of one kind are taken from.
BLOCKS = (
    (0x01, 0x1F), (0x20, 0x7E), (0x41, 0x5A), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x530, 0x5FF), (0x600, 0x6FF), (0x700, 0x8FF), (0x900, 0x97F), (0x980, 0xAFF), (0xB00, 0xDFF),
    (0xE00, 0xEFF), (0xF00, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x13FF), (0x1400, 0x17FF), (0x1800, 0x1CFF), (0x1D00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x23FF), (0x2400, 0x24FF), (0x2500, 0x27BF), (0x27C0, 0x28FF), (0x2900, 0x2DFF),
    (0x2E80, 0x30FF), (0x3100, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3),
    (0xAC00, 0xD7A3), (0xF900, 0xFDFF), (0xFE00, 0xFE6F), (0xFE70, 0xFEFF), (0xFF00, 0xFFEF), (0x10000, 0x11FFF),
    (0x12000, 0x16FFF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x2A6DF),
)  # fmt: skip


def _of_block(c: random.Random, number: int) -> str:
    low, high = BLOCKS[number % len(BLOCKS)]
    known = [chr(i) for i in range(low, high + 1) if unicodedata.category(chr(i)) not in ("Cn", "Cs")]
    return "".join(c.choices(known, k=600))


def hostile_texts(each: int = 60) -> Iterator[tuple[str, str, str, str]]:
    """Yield texts that nobody would write; the fit takes from them what an unheard-of neighbour costs."""
    for number in range(each):
        c = random.Random(f"hostile/{number}")
        pool = [_random_character(c) for _ in range(8)]
        letters = string.ascii_letters + string.digits + string.punctuation + " \n"
        texts = {
            "any": "".join(_random_character(c) for _ in range(600)),
            "with-ascii": "".join(c.choice((_random_character(c), c.choice(letters))) for _ in range(600)),
            "few": "".join(c.choice(pool) for _ in range(300)),
            "marks": "".join("a" + "".join(chr(c.randrange(0x300, 0x36F)) for _ in range(9)) for _ in range(30)),
            "private": "".join(chr(c.randrange(0xE000, 0xF8FF)) for _ in range(300)),
            "astral-private": "".join(chr(c.randrange(0xF0000, 0xFFFFD)) for _ in range(200)),
            "alternating": (c.choice(letters) + c.choice(letters)) * 200,
            "punctuation": "".join(c.choice(string.punctuation) for _ in range(400)),
        }
        texts |= {f"block-{part}": _of_block(c, number + part * each) for part in range(2)}
        for sub, text in texts.items():
            yield f"hostile/{sub}/{number}", "hostile", sub, text


def character_texts() -> Iterator[tuple[str, str, str, str]]:
    """Yield every assigned character on a line of its own, 128 a text: what each costs alone."""
    known = [chr(code) for code in range(128, 0x30000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    known += ["\ue000", "\U000f0000", "\u0378"]
    for start in range(0, len(known), 128):
        yield f"{start}", "characters", "one a line", "".join(c + "\n" for c in known[start : start + 128])


RUN = 640
"""How long the texts of one character are; of ASCII, four times as long: one vocabulary has a token of 1 024 spaces."""


def run_texts() -> Iterator[tuple[str, str, str, str]]:
    """Yield runs: every character up to U+0600 and every 40th beyond, over and over, and some that take turns."""
    known = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    known += ["\ue000", "\U000f0000", "\u0378"]
    often = [character for character in known if character < "\u0600"]
    for character in [*often, *known[len(often) :: 40], *known[-3:]]:
        yield f"{ord(character):x}", "runs", "one", character * (RUN if character > "~" else 4 * RUN)
    for pair in ("\r\n", "\n\r"):
        yield pair.encode().hex(), "runs", "two", pair * (RUN // 2)


def letters_of_scripts() -> dict[str, list[str]]:
    """Return the letters and marks of each script that many people write, by the first word of their names."""
    found: dict[str, list[str]] = {}
    for code in range(0xC0, 0x10000):
        character = chr(code)
        name = unicodedata.name(character, "?").split()[0]
        if name in SCRIPTS and unicodedata.category(character)[0] in "LM":
            found.setdefault(name, []).append(character)
    return found


SCRIPTS = (
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA",
    "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "HANGUL",
    "ETHIOPIC", "KHMER", "HIRAGANA", "KATAKANA", "COMBINING", "FULLWIDTH", "HALFWIDTH",
)  # fmt: skip


def at_random(c: random.Random, letters: list[str], size: int, spaced: bool) -> str:
    """Return letters at random, and with `spaced` a space behind every two to six of them."""
    text = ""
    while len(text) < size:
        text += "".join(c.choices(letters, k=c.randrange(2, 7))) + " " * spaced
    return text[:size]


def rare_letters() -> dict[str, list[str]]:
    """Return the letters of the scripts that few people write, by the first word of their names."""
    found: dict[str, list[str]] = {}
    for code in range(0xC0, 0x20000):
        character = chr(code)
        name = unicodedata.name(character, "?").split()[0]
        if unicodedata.category(character)[0] == "L" and name not in (*SCRIPTS, "CJK"):
            found.setdefault(name, []).append(character)
    return {name: letters for name, letters in found.items() if len(letters) >= 8}


def letter_texts(each: int = 3) -> Iterator[tuple[str, str, str, str]]:
    """Yield letters of each script at random: of all of it, of its fullest block, of eight letters; spaced and not."""
    for script, letters in letters_of_scripts().items():
        blocks: dict[int, list[str]] = {}
        for letter in letters:
            blocks.setdefault(0 if script == "HANGUL" else ord(letter) >> 8, []).append(letter)
        for number in range(each):
            c = random.Random(f"letters/{script}/{number}")
            full = max(blocks.values(), key=len)
            for sub, pool in (("all", letters), ("block", full), ("few", c.sample(full, 8))):
                for spaced in (False, True):
                    key = f"{script}/{sub}/{'spaced' if spaced else 'joined'}/{number}"
                    yield key, "letters", script, at_random(c, pool, 700, spaced)
    for script, letters in rare_letters().items():
        for spaced in (False, True):
            c = random.Random(f"letters/{script}")
            key = f"{script}/all/{'spaced' if spaced else 'joined'}"
            yield key, "letters", script, at_random(c, letters, 700, spaced)


def blank_texts() -> Iterator[tuple[str, str, str, str]]:
    """Yield runs of each blank: spaces of every width, what joins or separates and is not seen, and fillers."""
    known = [chr(code) for code in range(0x80, 0x10000) if unicodedata.category(chr(code)) in ("Zs", "Zl", "Zp", "Cf")]
    known += [*map(chr, range(0xFE00, 0xFE10)), *"\u034f\u115f\u1160\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"]
    for blank in sorted(known):
        yield f"{ord(blank):x}", "blanks", "one", blank * RUN
