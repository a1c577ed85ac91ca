"""Penn Treebank tokens of captions, equal to the Java tokeniser of the official caption metrics.

The COCO caption evaluation calls Stanford CoreNLP 3.4.1's ``PTBTokenizer -preserveLines -lowerCase`` and then drops
punctuation tokens. This module gives the same tokens without Java. It is a longest-match scanner: at each
position every rule that may start with the character at hand is tried, the longest match wins, the earlier rule
on a tie. The rules and tables describe the Java program's observable behaviour (see
``benchmarks/ptb_against_java.py``); a few of its peculiarities:

* lower-casing comes last, so ``W.`` before a capital and ``w.`` before a small letter differ;
* abbreviations keep their period, ``word.word`` is one token, ``5:54pm`` is two, a mixed fraction such as
  ``22 3/4`` is one token with a no-break space inside;
* brackets and ``!!`` stay as tokens (``-lrb-``, ``!!``), because the official list names brackets in capitals.

The Java program reads all captions as one file, so the first letter of the *next* caption can decide whether a
single letter at the end of a caption keeps its period. Here every caption stands alone, as if a caption with
a capital letter followed (the usual case), so tokens do not depend on the order of the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from unival.metrics.ptb_characters import DIGITS, LETTERS, SYMBOLS

# Line separators that Java, but not the official Python wrapper, would take as the end of a caption.
LINE_BREAKS = "\n\r\x0b\x0c\u2028\u2029"
_BREAKS = str.maketrans(dict.fromkeys(LINE_BREAKS, " "))

_FOLLOWING = "\nA "


def _ranges(table: str) -> str:
    """The table as the inside of a regular expression's character class."""
    pairs = (word.partition("-") for word in table.split())
    return "".join(rf"\u{int(a, 16):04x}" + (rf"-\u{int(b, 16):04x}" if b else "") for a, _, b in pairs)


_TAG = r"[A-Za-z][A-Za-z0-9_:.-]*"
_L = f"(?:[A-Za-z{_ranges(LETTERS)}]|&[aeiouAEIOU](?:acute|grave|uml);)"
_D = f"[0-9{_ranges(DIGITS)}]"
_X = f"(?:{_L}|{_D})"
_A = "(?:['\x92\u2019]|&apos;)"
_Q = "(?:['\x92\u2019`\x91\u2018\u201b]|&apos;)"
_S = "[ \t\xa0\u2000-\u200a\u3000]"
_END = "[ \t\n\xa0\u2000-\u200a\u3000]"
_ACRONYM = (
    r"(?:[A-Za-z](?:\.[A-Za-z])*|(?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r)))"
)
_EXTENSION = (
    "bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|"
    "txt|wav|x|xml|zip|wm[va]|avi|flv|mp[34g]"
)

# Abbreviations that keep their period, in any case of letters.
_ABBREVIATIONS = frozenset(
    "adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt cf "
    "cie cmdr co col colo comdr conn cont'd corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla "
    "fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs "
    "mich minn mlle mme mo mon mont mr mrs ms msgr mt natl neb nev nov oct okla penn pfc ph ph.d plc pres prof profs pvt "
    "rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs treas tue "
    "tues univ va vs vt wed wis wisc wm wyo".split()
)
# States that are also words: only with a capital first letter.
_CAPITAL_ABBREVIATIONS = frozenset("ark az del ill la mass miss ore pa tex wash".split())
# Spellings whose later letters must be small.
_SMALL_ABBREVIATION = re.compile(r"[Mm][ft][Gg]|[Pp][Pp]?[Tt][ye][Ss]?")
# Abbreviations only before a number.
_NUMBER_ABBREVIATION = rf"(?i:arts?|ca|figs?|nos?|op|pp|prop)\.(?={_S}?{_D})"
_ARTS = re.compile(r"(?i:arts)\.")

# Words before which a single letter's period ends a sentence.
_SENTENCE_START = "(?:{})".format(
    "|".join(
        f"{word[0].upper()}(?i:{word[1:]})"
        for word in (
            "a about according after an as at but he her here if in it last many more now once one other our she since "
            "so some such that the their then there these they this we what when while yet you"
        ).split()
    )
)

_HALVES = {"cannot": 3} | dict.fromkeys(("gonna", "gotta", "lemme", "gimme", "wanna"), 3)

_BRACKETS = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
)
_ROUND = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
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


def _halves(token: str) -> list[str]:
    at = 2 if token.lower() in ("'tis", "'twas", "y'all") else 3
    return [token[:at].lower(), token[at:].lower()]


def _entity(token: str) -> list[str]:
    return {"&amp;": ["&"], "&lt;": ["<"], "&gt;": [">"]}.get(token.lower(), [])


# (pattern, what to emit). A group marks the token where the rule looks further ahead; the length that counts is
# that of the whole match, as in the Java scanner.
_RULES: list[tuple[str, Emit]] = [
    (r"(?i:cannot|gonna|gotta|lemme|gimme|wanna)", _halves),
    (r"'(?i:tis|twas)", _halves),
    (rf"<(?:[!?][A-Za-z-][^>\r\n]*|/?{_TAG}(?: +(?:{_TAG}(?: *= *(?:'[^'\r\n]*'|\"[^\"\r\n]*\"))?))* */? *)>", _tag),
    (r"&(?:MD|mdash|ndash);", _nothing),
    (r"(?i:&nbsp;)", _nothing),
    (r"(?i:&(?:amp|lt|gt|quot|apos);)", _entity),
    (r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", _word),
    (rf"({_L}{_X}*(?:[.!?]{_L}{_X}*)*){_A}(?i:[msd]|re|ve|ll)", _word),
    (rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)n{_Q}t", _word),
    (rf"{_L}{_X}*(?:[.!?]{_L}{_X}*)*", _word),
    (
        rf"{_A}n{_A}?|[lLdDjJ]{_A}|[yY]{_A}(?={_L})|(?i:dunkin|somethin|ol){_A}|{_A}(?i:em|till?|cause)|{_A}[2-9]0s|"
        rf"[A-HJ-XZn]{_Q}{_L}{{2,}}|{_L}+[aeiouy]{_A}[aeiouA-Z]{_L}*|"
        r"(?i:cont'd\.|'twas|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|o'clock)",
        _word,
    ),
    (r"https?://[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-]", _word),
    (
        r"(?:www\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|"
        r"(?:[^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu))"
        r"(?:/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-])?",
        _word,
    ),
    (
        r"[a-zA-Z0-9][^ \t\n\f\r\"<>|()\xa0{}]*@(?:[^ \t\n\f\r\"<>|(){}.\xa0]+\.)*"
        r"[^ \t\n\f\r\"<>|(){}\[\].,;:\xa0]+",
        _word,
    ),
    (r"@[A-Za-z_][A-Za-z_0-9]*", _word),
    (rf"#{_L}+", _word),
    (rf"({_A}(?i:[msd]|re|ve|ll))(?:[^A-Za-z])", _suffix),
    (rf"(n{_Q}t)(?:[^A-Za-z])", _suffix),
    (rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}", _word),
    (rf"[-+]?(?:{_D}*(?:[.:,\xad\u066b\u066c]{_D}+)+|{_D}+)", _word),
    (rf"(?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}}", _joined),
    (r"(?i:-(?:RRB|LRB|RCB|LCB|RSB|LSB)-|c\.d\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls)", _word),
    (rf"(?i:cap{_A}n|c{_A}est)", _word),
    (rf"({_A}[0-9][0-9]){_END}", _word),
    (r"<<|>>", _word),
    (r"[A-Z]*\$", _word),
    (rf"{_ACRONYM}\.", _word),
    (rf"([A-Za-z])\.{_END}+{_SENTENCE_START}{_END}", _word),
    (r"[A-Za-z]+(?:\.[Dd]|'[dD])?\.", _word),
    (_NUMBER_ABBREVIATION, _word),
    (
        r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])[0-9]{3,4}[- \xa0]?[0-9]{3,5}|"
        r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
        _joined,
    ),
    (rf"(?:[dDoOlL]{_Q}{_X})?{_X}+(?:[-_\u058a\u2010\u2011](?:[dDoOlL]{_Q}{_X})?{_X}+)*", _word),
    (r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", _word),
    (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", _word),
    (rf"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+", _word),
    (rf"{_X}+(?:\.{_X}+)*\.(?i:{_EXTENSION})", _word),
    (r"C\+\+|C#", _word),
    (r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z]", _joined),
    (r"[\^x=~<>]\.\[\^x=~<>]|[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)", _joined),
    (rf"({_A})[A-Za-z][^ \t\n\r\xa0]", _nothing),
    (r"[!?]+", lambda token: [token] if len(token) > 1 else []),
    (r"\\\*(?:\\\*){0,2}|\*+|@+|#+|_+", _word),
    (rf"[&~^=|\\/%+<>()\[\]{{}}\xa2\xa3\xa4\u20a0\u20ac\x80{''.join(_FRACTIONS)}{_ranges(SYMBOLS)}]", _symbol),
]


def _accepts(word: str) -> bool:
    """Whether ``word`` (ending in a period) is an abbreviation that keeps it."""
    stem = word[:-1]
    return (
        stem.lower() in _ABBREVIATIONS
        or (stem.lower() in _CAPITAL_ABBREVIATIONS and stem[0].isupper())
        or _SMALL_ABBREVIATION.fullmatch(stem) is not None
    )


_COMPILED = [(re.compile(pattern), emit) for pattern, emit in _RULES]
_ABBREVIATION = next(rule for (pattern, _), rule in zip(_RULES, _COMPILED, strict=True) if pattern.startswith("[A-Za-z]+(?:\\.[Dd]"))


@lru_cache(maxsize=256)
def _candidates(first: str) -> tuple[tuple[re.Pattern[str], Emit], ...]:
    return tuple(_COMPILED)


def _scan(text: str) -> list[str]:
    tokens: list[str] = []
    source, position, end = text + _FOLLOWING, 0, len(text)
    while position < end:
        if source[position] == " ":
            position += 1
            continue
        longest, best, emit = 0, None, _nothing
        for pattern, rule in _COMPILED:
            found = pattern.match(source, position)
            if found and found.end() - position > longest:
                if pattern is _ABBREVIATION[0] and not _accepts(found[0]):
                    continue
                longest, best, emit = found.end() - position, found, rule
        if best is None:
            position += 1
            continue
        token = best[1] if best.re.groups and best[1] else best[0]
        tokens += emit(token)
        position += len(token)
    return tokens


def ptb_tokenize(text: str) -> list[str]:
    """Lower-case tokens of one caption, punctuation removed.

    Line separators count as spaces. A token can hold a no-break space (mixed fractions, telephone numbers).
    """
    return _scan(text.translate(_BREAKS))
