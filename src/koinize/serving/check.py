"""A server asked, our own answers computed, and the two compared: the whole check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from koinize.errors import InputError
from koinize.model import base
from koinize.model.loaded import Loaded, load_model
from koinize.pipeline.work import quiet
from koinize.serving.client import Client
from koinize.serving.judge import FLOOR, MARGIN, Finding, Hypothesis, distances, judge
from koinize.serving.ours import log_probabilities
from koinize.serving.prompts import Asked, Ids, drawn, wordings
from koinize.serving.server import Answer, Server, Way, check_model, models_of
from koinize.serving.subject import Subject
from koinize.serving.vocabulary import Vocabulary
from koinize.serving.weights import Weights, weights_of

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many times it was, and how many times it will be."""

Refused = tuple[str, Way, str]
"""A server's name of a model, a way in which it was not asked, and what the server said."""

ALL = slice(None)
SCREENED, SCREEN = 8, 4 * MARGIN
"""An explanation that is as many times as far away as the nearest, on so many prompts, is not
computed for the rest."""
FEWEST = 3
"""Prompts that have to be answered with log-probabilities."""


@dataclass(frozen=True)
class Request:
    """What is asked of whom: `prompts` of each language; `base_model` is what the server calls the
    base without an adapter, where it has it.
    """

    client: Client
    model: str
    base_model: str | None = None
    prompts: int = 20


@dataclass(frozen=True)
class Point:
    """One token after one prompt: log-probabilities by the server, by what should be served, and
    by the base. `prompt` counts from 0.
    """

    prompt: int
    language: str
    key: str
    text: str
    id: int
    token: str
    server: float
    ours: float
    base: float


@dataclass(frozen=True)
class Found:
    """The finding about one name of the server's, asked in one way.

    `farthest` is the token with the largest difference from what should be served; `first` the one
    in the first prompt that diverges, None where none does. `tokens` were compared, on `prompts`.
    """

    model: str
    way: Way
    expected: str
    finding: Finding
    prompts: int
    tokens: int
    farthest: Point
    first: Point | None


@dataclass(frozen=True)
class Verification:
    """All findings, those about the adapter first. `lengths` are the prompts', in tokens."""

    title: str
    url: str
    owner: str
    languages: tuple[str, ...]
    found: tuple[Found, ...]
    lengths: tuple[int, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether each of them is, and the prompts were answered as users send them."""
        return not self.unheard and all(one.finding.verdict == "right" for one in self.found)

    @property
    def unheard(self) -> tuple[Refused, ...]:
        """The refusals of what users send: token ids are ours alone, and may be refused."""
        return tuple(one for one in self.refused if one[1] != "tokens")


@dataclass(frozen=True)
class _Asking:
    """The prompts that were answered in one way: log-probabilities by token, counts of tokens."""

    model: str
    way: Way
    expected: str
    asked: Sequence[Asked]
    placed: Sequence[Mapping[int, float]]
    counts: Sequence[int | None]


def check_serving(
    subject: Subject, request: Request, progress: Progress | None = None
) -> Verification:
    """Ask the server and say what it serves.

    Raises InputError for a server that cannot be asked, and for an adapter that does not fit.
    """
    tell = progress or (lambda *_: None)
    listed, owner = models_of(request.client)
    for name in (request.model, request.base_model):
        if name is not None:
            check_model(name, listed, request.client)
    tell("loading the base model", 0, 1)
    loaded = _load(subject)
    asked = drawn(subject, loaded.encoder, request.prompts)
    if len(asked) < FEWEST:
        raise InputError(
            f"there are {len(asked)} prompts to ask in {', '.join(subject.examples)}",
            expected=f"{FEWEST} at least",
            remedy="give more rows with other prompts",
        )
    askings, refused = _ask_all(request, subject, loaded, asked, tell)
    tokens = sorted({token for it in askings for one in it.placed for token in one})
    weights = weights_of(subject.adapter, subject.others)
    explained = [_hypotheses(weights, loaded, it) for it in askings]
    ours = _Ours(loaded, tokens, tell)
    some = _some(len(asked))
    ours.prepare([one for each in explained for one in each], some)
    kept = [_kept(it, each, ours, some) for it, each in zip(askings, explained, strict=True)]
    ours.prepare([one for each in kept for one in each])
    found = [
        _found(it, {one: ours.of(one) for one in each}, ours)
        for it, each in zip(askings, kept, strict=True)
    ]
    return Verification(
        title=subject.title,
        url=request.client.url,
        owner=owner,
        languages=tuple(subject.examples),
        found=tuple(found),
        lengths=tuple(len(one.ids) for one in asked),
        refused=tuple(refused),
    )


def _load(subject: Subject) -> Loaded:
    quiet()
    spec = subject.base
    path = base.prepare(spec, subject.root, base.user_cache())
    return load_model(
        path, spec.dtype, name=spec.model, revision=spec.revision, template=spec.template
    )


def _ask_all(
    request: Request, subject: Subject, loaded: Loaded, asked: Sequence[Asked], tell: Progress
) -> tuple[list[_Asking], list[Refused]]:
    """Under each name in each way that the server takes: as tokens, and as its users ask; and the
    ways that it refused. Raises InputError where these are all.
    """
    ways: tuple[Way, ...] = ("tokens", "chat" if loaded.encoder.chat else "text")
    names = [(request.model, "adapter")]
    if request.base_model is not None:
        names.append((request.base_model, "base"))
    vocabulary = Vocabulary(loaded.encoder, loaded.model.config.get_text_config().vocab_size)
    found, refused = [], []
    for name, expected in names:
        server = Server(request.client, name, subject.base.template)
        answers = {way: _ask(server, way, asked, tell) for way in ways}
        if not any(answers.values()):
            raise InputError(
                f"refuses to be asked as '{name}': {server.refused[ways[1]]}",
                where=request.client.url,
            )
        refused += [(name, way, said) for way, said in server.refused.items()]
        found += [
            _asking(name, way, expected, asked, each, vocabulary)
            for way, each in answers.items()
            if each
        ]
    return found, refused


def _asking(
    name: str,
    way: Way,
    expected: str,
    asked: Sequence[Asked],
    answers: Sequence[Answer],
    vocabulary: Vocabulary,
) -> _Asking:
    """The prompts of which the server named a token. Raises InputError where they are too few."""
    placed = [vocabulary.placed(one.logprobs) for one in answers]
    kept = [number for number, one in enumerate(placed) if one]
    if len(kept) < FEWEST:
        raise InputError(
            f"names tokens that the base model's tokenizer has after {len(kept)} of {len(asked)} "
            "prompts",
            where=name,
            expected=f"after {FEWEST} at least",
            remedy="it serves another model; or name the base model that the adapter belongs to",
        )
    return _Asking(
        model=name,
        way=way,
        expected=expected,
        asked=[asked[one] for one in kept],
        placed=[placed[one] for one in kept],
        counts=[answers[one].prompt_tokens for one in kept],
    )


def _ask(server: Server, way: Way, asked: Sequence[Asked], tell: Progress) -> list[Answer]:
    """One answer a prompt, some perhaps without log-probabilities; none from a server that is not
    asked in this way.
    """
    found: list[Answer] = []
    for number, one in enumerate(asked):
        answer = server.next_token(way, one.sent(way))
        if answer is None:
            return []
        found.append(answer)
        tell(f"asking '{server.model}' by {way}", number + 1, len(asked))
        if len(found) == FEWEST and not any(one.logprobs for one in found):
            raise InputError(
                "answers without log-probabilities",
                where=server.client.url,
                remedy="let the server give them: vLLM by --max-logprobs 20, Ollama since 0.12.11",
            )
    return found


def _hypotheses(weights: Sequence[Weights], loaded: Loaded, asking: _Asking) -> list[Hypothesis]:
    """All weights with the right wording, and the adapter and the base with every other one."""
    right, *others = wordings(asking.asked, loaded.encoder, asking.way, asking.counts)
    plain = [one for one in weights if one.kind in ("adapter", "base")]
    return [
        *(Hypothesis(one, right) for one in weights),
        *(Hypothesis(one, wording) for wording in others for one in plain),
    ]


class _Ours:
    """Our own log-probabilities of the named tokens, each prompt computed once for each weights."""

    def __init__(self, loaded: Loaded, tokens: Sequence[int], tell: Progress) -> None:
        self.loaded, self.tokens, self._tell = loaded, tokens, tell
        self._known: dict[tuple[Weights, Ids], np.ndarray] = {}

    def prepare(self, hypotheses: Sequence[Hypothesis], some: slice = ALL) -> None:
        """Compute what these need on some prompts, one weights after the other."""
        wanted: dict[Weights, dict[Ids, None]] = {}
        for one in hypotheses:
            prompts = [
                ids for ids in one.wording.ids[some] if (one.weights, ids) not in self._known
            ]
            if prompts:
                wanted.setdefault(one.weights, {}).update(dict.fromkeys(prompts))
        for number, (weights, each) in enumerate(wanted.items()):
            self._tell("computing what each explanation predicts", number, len(wanted))
            rows = log_probabilities(self.loaded, weights, list(each), self.tokens)
            self._known |= {(weights, ids): row for ids, row in zip(each, rows, strict=True)}

    def of(self, one: Hypothesis, some: slice = ALL) -> np.ndarray:
        """(prompts, tokens) by one explanation."""
        return np.stack([self._known[one.weights, ids] for ids in one.wording.ids[some]])


def _some(count: int) -> slice:
    """A few of so many prompts, evenly spread."""
    return slice(0, None, max(1, count // SCREENED))


def _kept(
    asking: _Asking, hypotheses: Sequence[Hypothesis], ours: _Ours, some: slice
) -> list[Hypothesis]:
    """The explanations that a few prompts leave possible, with the adapter and the base."""
    answers = _matrix(asking.placed[some], ours.tokens)
    far = {one: float(distances(answers, ours.of(one, some)).mean()) for one in hypotheses}
    most = SCREEN * min(far.values())
    always = (("adapter", "right"), ("base", "right"))
    return [one for one in hypotheses if far[one] <= most or one.kinds in always]


def _matrix(placed: Sequence[Mapping[int, float]], tokens: Sequence[int]) -> np.ndarray:
    """Log-probabilities (prompts, tokens); NaN where a token was not named."""
    places = {token: place for place, token in enumerate(tokens)}
    found = np.full((len(placed), len(tokens)), np.nan)
    for row, one in zip(found, placed, strict=True):
        for token, value in one.items():
            row[places[token]] = value
    return found


def _found(asking: _Asking, each: Mapping[Hypothesis, np.ndarray], ours: _Ours) -> Found:
    answers, asked = _matrix(asking.placed, ours.tokens), asking.asked
    finding = judge(answers, asking.counts, each, asking.expected)
    right, bare = (
        next(values for one, values in each.items() if one.kinds == (kind, "right"))
        for kind in (asking.expected, "base")
    )
    gaps = np.nan_to_num(np.abs(np.maximum(answers, FLOOR) - np.maximum(right, FLOOR)), nan=-1.0)

    def point(prompt: int) -> Point:
        place = int(gaps[prompt].argmax())
        one = asked[prompt]
        return Point(
            prompt=prompt,
            language=one.language,
            key=one.key,
            text=one.text,
            id=ours.tokens[place],
            token=ours.loaded.encoder.spelt((ours.tokens[place],)),
            server=float(answers[prompt, place]),
            ours=float(right[prompt, place]),
            base=float(bare[prompt, place]),
        )

    first = _first(finding)
    return Found(
        model=asking.model,
        way=asking.way,
        expected=asking.expected,
        finding=finding,
        prompts=len(asked),
        tokens=int((~np.isnan(answers)).sum()),
        farthest=point(int(gaps.max(axis=1).argmax())),
        first=None if first is None else point(first),
    )


def _first(finding: Finding) -> int | None:
    """The first prompt that diverges: further from what should be served than twice what the
    nearest explanation leaves; the furthest one where the explanations are too near.
    """
    if finding.verdict == "right":
        return None
    if finding.astray:
        return finding.astray[0]
    over = np.flatnonzero(finding.apart > max(2 * finding.distance, finding.effect / 4))
    return int(over[0]) if len(over) else int(finding.apart.argmax())
