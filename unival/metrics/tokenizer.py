"""Penn Treebank tokens of captions, equal to the Java tokeniser of the official caption metrics.

The COCO caption evaluation calls Stanford CoreNLP 3.4.1's ``PTBTokenizer -preserveLines -lowerCase`` and then
drops punctuation tokens. This module gives the same tokens without Java. It is a longest-match scanner: at
each position every rule that may start with the character at hand is tried, the longest match wins, the
earlier rule on a tie. The rules and tables describe the Java program's observable behaviour (see
``benchmarks/ptb_against_java.py``); a few of its peculiarities:

* lower-casing comes last, so some rules see capitals (``S. The`` loses a period that ``S. the`` keeps);
* abbreviations keep their period, ``word.word`` is one token, ``5:54pm`` is two, a mixed fraction such as
  ``22 3/4`` is one token with a no-break space inside;
* brackets and ``!!`` stay as tokens (``-lrb-``, ``!!``), because the official list names brackets in
capitals.

The Java program reads all captions as one file, so the first letter of the *next* caption can decide
whether a single letter at the end of a caption keeps its period. Here every caption stands alone, as if a
caption with the word "A" followed (the usual case), so tokens do not depend on the order of the data.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import cache, lru_cache

from unival.metrics.ptb_tables import (
    CAPITAL_ABBREVIATIONS,
    DIGITS,
    ENDING_ABBREVIATIONS,
    FILE_EXTENSIONS,
    INNER_ABBREVIATIONS,
    LETTERS,
    MARKS,
    SENTENCE_STARTS,
    SYMBOLS,
)

# Line separators that Java, but not the official Python wrapper, would take as the end of a caption.
LINE_BREAKS = "\n\r\x0b\x0c\u2028\u2029"
_BREAKS = str.maketrans(dict.fromkeys(LINE_BREAKS, " "))

_FOLLOWING = "\nA "


def _ranges(table: str) -> str:
    """The table as the inside of a regular expression's character class."""
    pairs = (word.partition("-") for word in table.split())
    return "".join(rf"\u{int(a, 16):04x}" + (rf"-\u{int(b, 16):04x}" if b else "") for a, _, b in pairs)


_L = f"(?:[A-Za-z{_ranges(LETTERS)}]|&[aeiouAEIOU](?:acute|grave|uml);)"
_D = f"[0-9{_ranges(DIGITS)}]"
_X = f"(?:{_L}|{_D})"
# Letters and digits without the combining marks that words otherwise may hold.
_P = rf"(?:[A-Za-z0-9]|(?![{_ranges(MARKS)}])[{_ranges(LETTERS)}{_ranges(DIGITS)}])"
_A = "(?:['\x92\u2019]|&apos;)"
_Q = "(?:['\x92\u2019`\x91\u2018\u201b]|&apos;)"
_S = "[ \t\xa0\u2000-\u200a\u3000]"
_END = "[ \t\n\xa0\u2000-\u200a\u3000]"
_ACRONYM = (
    r"(?:[A-Za-z](?:\.[A-Za-z])*|(?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r)))"
)
_EXTENSION = "|".join(FILE_EXTENSIONS.split())

_ENDING = frozenset(ENDING_ABBREVIATIONS.split())
_ABBREVIATIONS = _ENDING | frozenset(INNER_ABBREVIATIONS.split())
_CAPITAL_ABBREVIATIONS = frozenset(CAPITAL_ABBREVIATIONS.split())
# Spellings whose later letters must be small.
_SMALL_ABBREVIATION = re.compile(r"[Mm][ft][Gg]|[Pp][Pp]?[Tt][ye][Ss]?")
_SENTENCE_START = "(?:{}|M(?i:[rs])\\.)".format(
    "|".join(f"{word[0].upper()}(?i:{word[1:]})" for word in SENTENCE_STARTS.split())
)
_HALVES = frozenset(("cannot", "gonna", "gotta", "lemme", "gimme", "wanna"))

_BRACKETS = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
)
_ROUND = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
_ASCII_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u201b\x91\u2039", "`")
    | dict.fromkeys("\u2019\x92\u203a", "'")
    | dict.fromkeys("\u201c\x93\xab", "``")
    | dict.fromkeys("\u201d\x94\xbb", "''")
)
_CURRENCY = {"\xa3": "#", "\u20ac": "$", "\x80": "$", "\xa4": "$", "\u20a0": "$", "\xa2": "cents"}
_FRACTIONS = {"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"}

Emit = Callable[[str], list[str]]


def _nothing(token: str) -> list[str]:
    return []


def _word(token: str) -> list[str]:
    token = token.replace("\xad", "").replace("&amp;", "&").replace("&apos;", "'")
    return [token.lower()] if token else []


def _joined(token: str) -> list[str]:
    # Java prints a blank inside a token as a no-break space, so that the token stays one word.
    return [token.replace("\xad", "").replace(" ", "\xa0").translate(_ROUND).lower()]


def _tag(token: str) -> list[str]:
    return [token.replace(" ", "\xa0").lower()]


def _suffix(token: str) -> list[str]:
    return [re.sub(_Q, "'", token).lower()]


def _symbol(token: str) -> list[str]:
    token = _CURRENCY.get(token) or _FRACTIONS.get(token) or token
    return [token.translate(_BRACKETS).lower()]


def _plain(token: str) -> list[str]:
    return [token.lower()]


def _halves(token: str) -> list[str]:
    return [token[:3].lower(), token[3:].lower()]


def _marks(token: str) -> list[str]:
    return [token] if len(token) > 1 else []


def _hyphens(token: str) -> list[str]:
    return [token] if len(token) > 4 else []


def _quotes(token: str) -> list[str]:
    token = token.translate(_ASCII_QUOTES)
    return [] if token in ("'", "''", "`", "``") else [token]


def _entity(token: str) -> list[str]:
    plain = html.unescape(token.lower())
    return [plain] if plain in "&<>" else []


# Where a rule may start: the classes of first characters.
_LETTER, _DIGIT, _ALNUM = "LETTER", "DIGIT", "ALNUM"
_STARTS = {
    _LETTER: re.compile(f"[A-Za-z&{_ranges(LETTERS)}]"),
    _DIGIT: re.compile(_D),
    _ALNUM: re.compile(f"[A-Za-z&0-9{_ranges(LETTERS)}{_ranges(DIGITS)}]"),
}

_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = rf"{_TAG_NAME}(?: *= *(?:'[^'\r\n]*'|\"[^\"\r\n]*\"))?"
_TAG = rf"<(?:[!?][A-Za-z-][^>\r\n]*|/?{_TAG_NAME}(?: +{_ATTRIBUTE})* */? *)>"
_WORD = rf"{_L}{_X}*(?:[.!?]{_L}{_X}*)*"
_THING = rf"(?:[dDoOlL]{_Q}{_P})?{_P}+(?:[-_\u058a\u2010\u2011](?:[dDoOlL]{_Q}{_P})?{_P}+)*"
_LETTERS_JOINED = r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+"
_HYPHENED = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+"
_URL = r" \t\n\f\r\x85\"<>|"
_QUOTES = r"[`\u2018-\u201f\x91-\x94\u2039\u203a\xab\xbb]{1,2}"
_ABBREVIATION = r"([A-Za-z]+(?:\.[Dd]|'[dD])?\.)(?:[\s\S]{2})?"

# (first characters, pattern, what to emit). The first characters are one of the classes above or spelt out. A
# group marks the token where the rule looks further ahead; the length that counts is that of the whole match.
_RULES: list[tuple[str, str, Emit]] = [
    ("cCgGlLwW", r"(?i:cannot|gonna|gotta|lemme|gimme|wanna)", _halves),
    ("'", r"('(?i:t))(?i:is|was)", _word),
    ("<", _TAG, _tag),
    ("&", r"&(?:MD|mdash|ndash|nbsp);", _nothing),
    ("&", r"(?i:&(?:amp|lt|gt|quot|apos);)", _entity),
    ("&", r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", _word),
    (_LETTER, rf"({_WORD}){_A}(?i:[msd]|re|ve|ll)", _word),
    (_LETTER, rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)[nN]{_Q}[tT]", _word),
    (_LETTER, _WORD, _word),
    ("'\x92\u2019&", rf"{_A}[nN]{_A}?|{_A}(?i:em|till?|cause)|{_A}[2-9]0s", _word),
    ("lLdDjJ", rf"[lLdDjJ]{_A}", _word),
    ("yY", rf"[yY]{_A}(?={_L})", _word),
    ("dDsSoO", rf"(?i:dunkin|somethin|ol){_A}", _word),
    (_LETTER, rf"[A-HJ-XZn]{_Q}{_L}{{2,}}|{_L}+[aeiouy]{_A}[aeiouA-Z]{_L}*", _word),
    (
        "cCnNeEsSlLoO",
        r"(?i:cont'd\.|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|o'clock)",
        _word,
    ),
    ("hH", rf"(?i:https?)://[^{_URL}()]+[^{_URL}.!?(){{}},-]", _plain),
    (
        "wW",
        rf"(?i:www)\.(?:[^{_URL}.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}(?:/[^{_URL}()]+[^{_URL}.!?(){{}},-])?",
        _plain,
    ),
    (
        _ALNUM,
        rf"(?:[^{_URL}`'.!?(){{}},-_$]+\.)+(?i:com|net|org|edu)(?:/[^{_URL}()]+[^{_URL}.!?(){{}},-])?",
        _plain,
    ),
    (
        _ALNUM + "<",
        rf"(?:&lt;|<)?[a-zA-Z0-9][^{_URL}()\xa0{{}}]*@(?:[^{_URL}(){{}}.\xa0]+\.)*[^{_URL}(){{}}.\xa0]+(?:&gt;|>)?",
        _plain,
    ),
    ("@", r"@[A-Za-z_][A-Za-z_0-9]*", _word),
    ("#", rf"#{_L}+", _word),
    ("'\x92\u2019&", rf"({_A}(?i:[msd]|re|ve|ll))[^A-Za-z]", _suffix),
    ("nN", rf"([nN]{_Q}[tT])[^A-Za-z]", _suffix),
    ("\x92\u2019&", rf"{_A}(?i:[msd]|re|ve|ll)", _suffix),
    (_DIGIT, rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}", _word),
    (_DIGIT + "-+.:,\xad\u066b\u066c", rf"[-+]?(?:{_D}*(?:[.:,\xad\u066b\u066c]{_D}+)+|{_D}+)", _word),
    (_DIGIT, rf"(?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}}", _joined),
    ("-", r"(?i:-(?:RRB|LRB|RCB|LCB|RSB|LSB)-)", _word),
    ("cCpPaAsS", rf"(?i:c\.d\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls|cap{_A}n|c{_A}est)", _word),
    ("'\x92\u2019&", rf"({_A}[0-9][0-9]){_END}", _word),
    ("<>", r"<<|>>", _word),
    (_LETTER + "$", r"[A-Z]*\$", _word),
    (_LETTER, rf"{_ACRONYM}\.", _word),
    (_LETTER, rf"([A-Za-z])\.{_END}+(?:{_SENTENCE_START}{_END}|{_TAG})", _word),
    (_LETTER, _ABBREVIATION, _word),
    (_LETTER, rf"(?i:arts?|ca|figs?|nos?|op|pp|prop)\.(?={_S}?{_D})", _word),
    (
        _DIGIT + "(+",
        r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
        r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
        _joined,
    ),
    (_ALNUM, _THING, _word),
    (_LETTER, _LETTERS_JOINED, _word),
    (_ALNUM, r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", _word),
    (_ALNUM, _HYPHENED, _word),
    (_ALNUM, rf"({_X}+(?:\.{_X}+)*\.(?i:{_EXTENSION}))[ \t\n\xa0.?!,]", _word),
    (_ALNUM, rf"((?:{_WORD}|{_THING}|{_LETTERS_JOINED}|{_HYPHENED})\.)[,;:\u3001]", _word),
    ("cC", r"[cC]\+\+|[cC]#", _word),
    ("<>:;=", r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _joined),
    ("^x=~<>", r"[\^x=~<>]\.\[\^x=~<>]", _joined),
    ("-^x=~<>'", r"[-^x=~<>']_[-^x=~<>']", _joined),
    ("(", r"\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)", _joined),
    ("-", r"-+", _hyphens),
    (".\x85\u2026", r"\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\x85\u2026]", _nothing),
    ("'", r"(')[A-Za-z][^ \t\n\r\xa0]", _nothing),
    ("'", r"''", _nothing),
    ("'\x92\u2019&", _A, _nothing),
    (
        "`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\x91\x92\x93\x94\u2039\u203a\xab\xbb",
        _QUOTES,
        _quotes,
    ),
    ("!?", r"[!?]+", _marks),
    ("\\*@#_", r"\\\*(?:\\\*){0,2}|\*+|@+|#+|_+", _word),
]
_SYMBOL = re.compile(
    rf"[&~^=|\\/%+<>()\[\]{{}}\xa2\xa3\xa4\u20a0\u20ac\x80{''.join(_FRACTIONS)}{_ranges(SYMBOLS)}]"
)


def _abbreviation_length(word: str, length: int) -> int:
    """Length of the match if ``word`` (ending in a period) is an abbreviation, else 0.

    One that can end a sentence is matched together with the two characters after it, so it also wins over
    ``etc.A`` read as one word.
    """
    stem = word[:-1]
    small = stem.lower()
    if small in _ENDING or (small in _CAPITAL_ABBREVIATIONS and stem[0].isupper()):
        return length
    if _SMALL_ABBREVIATION.fullmatch(stem):
        return length if small[0] == "p" else len(word)
    return len(word) if small in _ABBREVIATIONS else 0


Rule = tuple[re.Pattern[str], Emit, bool]
# When a text needs a rule, and not at import: all of them take a fifth of a second, which every training would wait.
_compiled = cache(re.compile)


@lru_cache(maxsize=4096)
def _rules_for(first: str) -> tuple[Rule, ...]:
    """The rules that can match at a character."""

    def may_start(starts: str) -> bool:
        for name, pattern in _STARTS.items():
            if starts.startswith(name):
                return bool(pattern.match(first)) or first in starts[len(name) :]
        return first in starts

    rules = [
        (_compiled(pattern), emit, pattern is _ABBREVIATION)
        for starts, pattern, emit in _RULES
        if may_start(starts)
    ]
    return (*rules, (_SYMBOL, _symbol, False))


# A run of plain words, by far the most common text: nothing in it can join with what follows.
_PLAIN = re.compile(r"[A-Za-z]{2,}(?=,? [A-Za-z]|\n)|[Aa](?= [A-Za-z])")
_SPACES = frozenset(" \t\xa0\u3000")


def _scan(text: str) -> list[str]:
    tokens: list[str] = []
    source, position, end = text + _FOLLOWING, 0, len(text)
    while position < end:
        first = source[position]
        if first in _SPACES:
            position += 1
            continue
        plain = _PLAIN.match(source, position)
        if plain:
            token = plain[0].lower()
            if token not in _HALVES:
                tokens.append(token)
                position = plain.end()
                continue
        longest, best = 0, None
        emit: Emit = _nothing
        for pattern, rule, abbreviation in _rules_for(first):
            found = pattern.match(source, position)
            if found:
                length = found.end() - position
                if abbreviation:
                    length = _abbreviation_length(found[1], length)
                if length > longest:
                    longest, best, emit = length, found, rule
        if best is None:
            position += 1
            continue
        token = best[1] if best.re.groups else best[0]
        tokens += emit(token)
        position += len(token)
    return tokens


@lru_cache(maxsize=1 << 15)
def _scan_once(text: str) -> tuple[str, ...]:
    return tuple(_scan(text))


def _may_keep_period(word: str) -> bool:
    known = word in _ABBREVIATIONS or word in _CAPITAL_ABBREVIATIONS
    return len(word) == 1 or known or _SMALL_ABBREVIATION.fullmatch(word) is not None


_SIMPLE = re.compile(r"(?:[A-Za-z]{2,}|[Aa])(?:,? (?:[A-Za-z]{2,}|[Aa]))* ?\.?")


def ptb_tokenize(text: str) -> list[str]:
    """Lower-case tokens of one caption, punctuation removed.

    Line separators count as spaces. A token can hold a no-break space (mixed fractions, telephone numbers).
    """
    text = (
        text.translate(_BREAKS).strip(" ")
        if not text.isascii() or not text.isprintable()
        else text.strip(" ")
    )
    if _SIMPLE.fullmatch(text):
        words = text.lower().replace(",", "").rstrip(" .").split(" ")
        if _HALVES.isdisjoint(words) and not (text.endswith(".") and _may_keep_period(words[-1])):
            return words
    return list(_scan_once(text))
