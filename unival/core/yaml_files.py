"""YAML as people write it by hand: what would be dropped or guessed without a word is refused."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import yaml

from unival.errors import ConfigError, UnivalError

_MOST_NODES = 1_000_000  # a file of a hundred lines whose aliases refer to aliases can stand for billions


class _Once(yaml.constructor.SafeConstructor):
    """YAML's safe rules, but a key that stands twice in one mapping is an error; YAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # "<<" brings keys that own ones may replace
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the construction below says so
            line = key_node.start_mark.line + 1
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"'{key}' stands here and in line {seen[key]}; put both under one key, or remove one",
                    key_node.start_mark,
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


class _Loader(_Once, yaml.SafeLoader):
    """Its errors say more than the other's."""


# libyaml's parser is ten times as fast, and a run reads a dozen files; some builds of PyYAML lack it
_Fast: Any = type("_Fast", (_Once, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), {})


def read_yaml(path: str | os.PathLike[str], failure: type[UnivalError] = ConfigError) -> Any:
    """Return the content of a YAML file: mappings, lists, texts, numbers, dates, true, false and null.

    Raises ``failure`` (file, and line where there is one) for a file that cannot be read, is no YAML, has a key
    twice, or stands for more than a million values.
    """
    try:
        with open(path, "rb") as handle:
            text = handle.read().decode("utf-8-sig")
        try:
            return _content(_Fast(text))
        except yaml.YAMLError:
            return _content(_Loader(text))
    except OSError as error:
        raise failure(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise failure(f"{path}: invalid UTF-8 at byte {error.start + 1}; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise failure(f"{place}: not valid YAML: {said}") from None
    except RecursionError:
        raise failure(f"{path}: nested too deeply to be read") from None
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise failure(f"{path}: a value cannot be read: {error}") from None


def _content(loader: Any) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure(node: yaml.Node, sizes: dict[int, int], open_nodes: set[int]) -> int:
    """Return the number of values that a node stands for, aliases written out."""
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in open_nodes:
        raise yaml.constructor.ConstructorError(None, None, "a value contains itself", node.start_mark)
    open_nodes.add(id(node))
    size = 1
    if isinstance(node, yaml.MappingNode):
        size += sum(_measure(part, sizes, open_nodes) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_measure(part, sizes, open_nodes) for part in node.value)
    if size > _MOST_NODES:
        raise yaml.constructor.ConstructorError(
            None, None, f"stands for more than {_MOST_NODES:,} values", node.start_mark
        )
    open_nodes.discard(id(node))
    sizes[id(node)] = size
    return size
