"""Regular expressions that take linear time, whatever the pattern and the text.

Python's own ``re`` tries one way after another: a pattern such as ``(a+)+$`` takes longer
than anyone lives on a text that was written for it, and nothing can interrupt it. Here all
ways are followed at once (Thompson 1968), and the sets of places in the pattern that were met
are kept, so that the usual text costs one look-up a character.

Letters match in either case, ``.`` matches a line end too, ``^`` and ``$`` are the start and
the end of the text. Known are ``. [] [^] \\d \\w \\s \\D \\W \\S \\b \\B | () (?:) * + ? {m,n}``;
what a match captured is never asked for, so groups only group, and lazy repeats are repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass

MAX_PATTERN = 300
_MAX_NODES = 500
_MAX_TRANSITIONS = 20_000
_MAX_DEPTH = 20

_Test = Callable[[str], bool]

_CLASSES: dict[str, _Test] = {
    "d": str.isdecimal,
    "s": str.isspace,
    "w": lambda character: character.isalnum() or character == "_",
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}


class PatternError(ValueError):
    """What is wrong with a pattern, and at which of its characters."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what = what
        self.at = at


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str) -> None:
        """Compile ``text``.

        Raises:
            PatternError: it is no pattern of this language, or too large.
        """
        if len(text) > MAX_PATTERN:
            raise PatternError(f"a pattern has at most {MAX_PATTERN} characters", MAX_PATTERN)
        tree = _Parser(text).parse()
        self._literal = _longest_literal(tree)
        self._is_literal = isinstance(tree, _Row) and len(self._literal) == len(tree.items)
        self._machine = _Machine(tree)

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in ``text``."""
        text = text.lower()
        if self._literal not in text:
            return False
        return self._is_literal or self._machine.search(text)


# --- the tree of a pattern


@dataclass(frozen=True)
class _One:
    """One character."""

    test: _Test
    literal: str = ""
    """The character itself, where it is no class."""


@dataclass(frozen=True)
class _Assertion:
    """A place: ``^``, ``$``, ``b`` or ``B``."""

    kind: str


@dataclass(frozen=True)
class _Row:
    """One after the other."""

    items: "tuple[_Node, ...]"


@dataclass(frozen=True)
class _Either:
    """One or the other."""

    branches: "tuple[_Node, ...]"


@dataclass(frozen=True)
class _Repeat:
    """``least`` times or more; ``most`` None is without end."""

    item: "_Node"
    least: int
    most: int | None


_Node = _One | _Assertion | _Row | _Either | _Repeat


def _longest_literal(tree: _Node) -> str:
    """Characters that stand in every match: text without them need not be searched."""
    longest = run = ""
    for item in tree.items if isinstance(tree, _Row) else (tree,):
        literal = item.literal if isinstance(item, _One) else ""
        run = run + literal if literal else ""
        longest = max(longest, run, key=len)
    return longest


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def parse(self) -> _Node:
        tree = self._either()
        if self._at < len(self._text):
            raise PatternError("this bracket was never opened", self._at)
        return tree

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _either(self) -> _Node:
        branches = [self._row()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._row())
        return branches[0] if len(branches) == 1 else _Either(tuple(branches))

    def _row(self) -> _Node:
        items: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._repeated())
        return _Row(tuple(items))

    def _repeated(self) -> _Node:
        item = self._item()
        while (bounds := self._bounds()) is not None:
            item = _Repeat(item, *bounds)
            if self._peek() == "?":
                self._at += 1
        return item

    def _bounds(self) -> tuple[int, int | None] | None:
        known = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        character = self._peek()
        if character in known and character:
            self._at += 1
            return known[character]
        if character != "{":
            return None
        start = self._at
        inside, closing, _ = self._text[start + 1 :].partition("}")
        least, comma, most = inside.partition(",")
        numbers = [part for part in (least, most) if part]
        is_sound = all(part.isascii() and part.isdecimal() and len(part) < 4 for part in numbers)
        if not closing or not least or not is_sound:
            raise PatternError("repeats are written {3}, {3,} or {3,5}", start)
        self._at = start + len(inside) + 2
        bounds = (int(least), (int(most) if most else None) if comma else int(least))
        if bounds[1] is not None and bounds[1] < bounds[0]:
            raise PatternError("the first number of a repeat is the smaller one", start)
        return bounds

    def _item(self) -> _Node:
        start = self._at
        character = self._take()
        if character == "(":
            return self._group(start)
        if character == "[":
            return _One(self._set(start))
        if character == ".":
            return _One(lambda character: True)
        if character in "^$":
            return _Assertion(character)
        if character in "*+?{":
            raise PatternError("there is nothing to repeat", start)
        if character == "\\":
            kind = self._peek()
            if kind in ("b", "B"):
                self._at += 1
                return _Assertion(kind)
            escaped = self._escaped(start)
            return escaped if isinstance(escaped, _One) else _literal(escaped)
        return _literal(character)

    def _group(self, start: int) -> _Node:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._peek() == "?":
            raise PatternError("only (?:…) is known of the (?…) forms", start)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PatternError("too many brackets inside each other", start)
        tree = self._either()
        self._depth -= 1
        if self._take() != ")":
            raise PatternError("this bracket is never closed", start)
        return tree

    def _escaped(self, start: int) -> "_One | str":
        """What stands after a backslash: a class, or one character."""
        character = self._take()
        if not character:
            raise PatternError("a backslash needs a character after it", start)
        if character.lower() in _CLASSES:
            test = _CLASSES[character.lower()]
            return _One(test if character.islower() else lambda other: not test(other))
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise PatternError(f"\\{character} is not known; \\d \\w \\s \\b are", start)
        return character

    def _set(self, start: int) -> _Test:
        is_negated = self._peek() == "^"
        self._at += is_negated
        tests: list[_Test] = []
        is_first = True
        while (character := self._peek()) != "]" or is_first:
            if not character:
                raise PatternError("this [ is never closed", start)
            is_first = False
            low = self._set_member()
            if isinstance(low, _One):
                tests.append(low.test)
            elif self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                at = self._at
                high = self._set_member()
                if isinstance(high, _One) or high < low:
                    raise PatternError("a range goes from a lower to a higher character", at)
                tests.append(_range(low, high))
            else:
                tests.append(_range(low, low))
        self._at += 1
        return lambda other: any(test(other) for test in tests) != is_negated

    def _set_member(self) -> "_One | str":
        at = self._at
        character = self._take()
        return self._escaped(at) if character == "\\" else character


def _literal(character: str) -> _One:
    lowered = character.lower()
    return _One(lambda other: other == lowered, lowered)


def _range(low: str, high: str) -> _Test:
    return lambda other: low <= other <= high or low <= other.upper() <= high


# --- matching


class _State(dict[str, "_State"]):
    """Places in the pattern that a text can have reached; maps the next character on."""

    __slots__ = ("before", "machine", "nodes")

    def __init__(self, machine: "_Machine", nodes: frozenset[int], before: str) -> None:
        super().__init__()
        self.machine = machine
        self.nodes = nodes
        self.before = before
        """What stood before: ``edge`` for the start of the text, ``word`` or ``other``."""

    def __missing__(self, character: str) -> "_State":
        state = self[character] = self.machine.step(self, character)
        return state


class _Machine:
    """The pattern as a graph, and the states that were met while searching."""

    def __init__(self, tree: _Node) -> None:
        self._tests: list[_Test | None] = []
        self._kinds: list[str] = []
        self._nexts: list[tuple[int, ...]] = []
        self._end = self._add("end", ())
        self._start = self._build(tree, self._end)
        self._states: dict[tuple[frozenset[int], str], _State] = {}
        self._num_transitions = 0
        self._hit = _State(self, frozenset(), "")

    def search(self, text: str) -> bool:
        state = self._state(frozenset(), "edge")
        for character in text:
            state = state[character]
            if state is self._hit:
                return True
        return self._end in self._reached(state, "edge")

    def step(self, state: _State, character: str) -> _State:
        """Where ``character`` leads from ``state``."""
        self._num_transitions += 1
        if self._num_transitions > _MAX_TRANSITIONS:
            # Memory stays bounded; what is needed again is found again.
            for known in self._states.values():
                known.clear()
            self._states.clear()
            self._num_transitions = 0
        after = _kind(character)
        reached = self._reached(state, after)
        if self._end in reached:
            return self._hit
        nodes = frozenset(
            self._nexts[node][0]
            for node in reached
            if (test := self._tests[node]) is not None and test(character)
        )
        return self._state(nodes, after)

    def _state(self, nodes: frozenset[int], before: str) -> _State:
        key = (nodes, before)
        if key not in self._states:
            self._states[key] = _State(self, nodes, before)
        return self._states[key]

    def _reached(self, state: _State, after: str) -> set[int]:
        """All places that can be reached without a character; a match may start anywhere."""
        reached: set[int] = set()
        waiting = [*state.nodes, self._start]
        while waiting:
            node = waiting.pop()
            if node in reached:
                continue
            reached.add(node)
            kind = self._kinds[node]
            if kind == "split" or (kind in "^$bB" and _holds(kind, state.before, after)):
                waiting += self._nexts[node]
        return reached

    def _add(self, kind: str, nexts: tuple[int, ...], test: _Test | None = None) -> int:
        if len(self._kinds) >= _MAX_NODES:
            raise PatternError("this pattern is too large: repeat less", 0)
        self._kinds.append(kind)
        self._nexts.append(nexts)
        self._tests.append(test)
        return len(self._kinds) - 1

    def _build(self, tree: _Node, after: int) -> int:
        """Add ``tree`` in front of the node ``after``; returns where it starts."""
        match tree:
            case _One():
                return self._add("one", (after,), tree.test)
            case _Assertion():
                return self._add(tree.kind, (after,))
            case _Row():
                for item in reversed(tree.items):
                    after = self._build(item, after)
                return after
            case _Either():
                return self._add(
                    "split", tuple(self._build(branch, after) for branch in tree.branches)
                )
            case _Repeat():
                if tree.most is None:
                    loop = self._add("split", ())
                    self._nexts[loop] = (self._build(tree.item, loop), after)
                    after = loop
                else:
                    last = after
                    for _ in range(tree.most - tree.least):
                        after = self._add("split", (self._build(tree.item, after), last))
                for _ in range(tree.least):
                    after = self._build(tree.item, after)
                return after


def _kind(character: str) -> str:
    return "word" if _CLASSES["w"](character) else "other"


def _holds(kind: str, before: str, after: str) -> bool:
    if kind == "^":
        return before == "edge"
    if kind == "$":
        return after == "edge"
    return ((before == "word") != (after == "word")) == (kind == "b")
