"""The test rows as tasks of lm-evaluation-harness, with the command for every system.

What a row holds is what the model reads, after the prompt template and the chat template, so that
nothing has to be rendered again. How lm-evaluation-harness cuts it into tokens is tried with the
base model's own tokenizer, row by row.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from koinize import __version__
from koinize.errors import InputError, KoinizeError, StepError
from koinize.export import koinize_task
from koinize.export.llama_cpp import config_of
from koinize.ledger.address import System
from koinize.model.base import is_hub_id, prepare, user_cache
from koinize.model.encoding import Encoder, Tokens
from koinize.model.loading import load_tokenizer
from koinize.pipeline import Project
from koinize.pipeline.inputs import examples_of
from koinize.pipeline.kinds.evaluate import adapter_of
from koinize.pipeline.results import TEST, Results, value
from koinize.pipeline.systems import BASE
from koinize.release import Releases
from koinize.settings import EvaluationSpec
from koinize.store import NewFolder, refuse_own_folder
from koinize.tasks import Example, Task

PREFIX = "koinize"
MANIFEST = "export.json"
MODULE = Path(str(koinize_task.__file__))

NAMES = {
    "choose": ("accuracy", "accuracy_normalized"),
    "classify": ("accuracy", "accuracy_normalized", "macro_f1", "precision", "recall"),
    "write": ("exact_match", "chrf"),
}
"""The metrics of each way to process an answer, which is a function of `koinize_task`."""


@dataclass(frozen=True)
class Tasks:
    """What was written. `commands` are those of each system; `scores` has koinize's own, in points,
    by system, language and metric; `otherwise` counts the rows that are cut into other tokens.
    """

    out: Path
    commands: Mapping[str, Sequence[str]]
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    rows: int
    otherwise: int
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "format": 1,
            "koinize": __version__,
            "to": "lm-eval",
            "commands": {one: list(lines) for one, lines in self.commands.items()},
            "scores": self.scores,
            "rows": self.rows,
            "rows_with_other_tokens": self.otherwise,
            "notes": list(self.notes),
        }


def export_tasks(project: Project, task: str, out: Path) -> Tasks:
    """Write the test rows of a task, a file for each language, and what to run.

    Raises InputError where `out` exists, and for scores that lm-evaluation-harness cannot have.
    """
    refuse_own_folder(out)
    writer = _Writer(project, task, out.absolute())
    try:
        with closing(NewFolder(out)) as draft:
            counts = [writer.write(draft.folder, one) for one in project.spec.languages]
            writer.group(draft.folder)
            shutil.copyfile(MODULE, draft.folder / MODULE.name)
            rows, otherwise = map(sum, zip(*counts, strict=True))
            commands = dict(writer.commands())
            notes = tuple(writer.notes(rows, otherwise))
            found = Tasks(out, commands, writer.scores(), rows, otherwise, notes)
            (draft.folder / MANIFEST).write_text(
                json.dumps(found.record(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            draft.commit()
    except OSError as error:
        raise StepError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return found


@dataclass(frozen=True)
class _Writer:
    project: Project
    task: str
    out: Path

    @cached_property
    def definition(self) -> Task:
        return self.project.spec.tasks[self.task]

    @cached_property
    def settings(self) -> EvaluationSpec:
        found = self.definition.evaluation(self.project.spec.evaluation, TEST)
        if found.normalize == "pmi":
            raise InputError(
                "'pmi' compares options with an empty prompt, which lm-evaluation-harness renders "
                "in another way",
                where="evaluation.normalize",
                expected="none or length",
            )
        return found

    @cached_property
    def base(self) -> Path:
        spec = self.project.spec.base
        return prepare(spec, self.project.root, user_cache()).absolute()

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(*load_tokenizer(self.base), self.project.spec.base.template)

    @property
    def process(self) -> str:
        """The function of `koinize_task` that scores an answer."""
        if self.definition.mode == "text":
            return "write"
        return "classify" if self.definition.label_set else "choose"

    def name(self, language: str = "") -> str:
        """What lm-evaluation-harness calls the task; without a language, all of them."""
        return "_".join(filter(None, (PREFIX, self.task, language)))

    def write(self, draft: Path, language: str) -> tuple[int, int]:
        """One language: its rows, and how many of them are cut into other tokens."""
        examples = examples_of(
            self.definition,
            self.project.root,
            language,
            TEST,
            None,
            is_chat=self.project.manner.is_chat,
        )
        found = [self._row(one) for one in examples]
        file = f"{self.name(language)}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row, _ in found)
        (draft / file).write_text("".join(lines), encoding="utf-8")
        text = "\n".join(self._yaml(language, file)) + "\n"
        (draft / f"{self.name(language)}.yaml").write_text(text, encoding="utf-8")
        return len(found), sum(other for _, other in found)

    def _yaml(self, language: str, file: str) -> Iterator[str]:
        """The task's file; strings as JSON has them are strings of YAML."""
        yield f"task: {json.dumps(self.name(language))}"
        yield f"custom_dataset: !function {MODULE.stem}.rows"
        yield f"dataset_kwargs: {{file: {json.dumps(file)}}}"
        yield "test_split: test"
        yield "num_fewshot: 0"
        yield "doc_to_text: prompt"
        if self.definition.mode == "options":
            yield "output_type: multiple_choice"
            yield "doc_to_choice: options"
            yield "doc_to_target: gold"
            yield 'target_delimiter: ""'
        else:
            yield "output_type: generate_until"
            yield "doc_to_target: target"
            until = json.dumps(list(self.settings.stop), ensure_ascii=False)
            yield f"generation_kwargs: {{until: {until}, do_sample: false, "
            yield f"  max_gen_toks: {self.settings.max_new_tokens}}}"
        yield f"process_results: !function {MODULE.stem}.{self.process}"
        yield "metric_list:"
        for name in NAMES[self.process]:
            is_function = hasattr(koinize_task, name)
            yield f"  - metric: {name}"
            yield f"    aggregation: {f'!function {MODULE.stem}.{name}' if is_function else 'mean'}"
            yield "    higher_is_better: true"

    def group(self, draft: Path) -> None:
        """All languages under one name, with the plain mean over them."""
        lines = [f"group: {json.dumps(self.name())}", "task:"]
        lines += [f"  - {json.dumps(self.name(one))}" for one in self.project.spec.languages]
        lines.append("aggregate_metric_list:")
        for name in NAMES[self.process]:
            lines += [f"  - metric: {name}", "    weight_by_size: false"]
        text = "\n".join(lines) + "\n"
        (draft / f"{self.name()}.yaml").write_text(text, encoding="utf-8")

    def _row(self, example: Example) -> tuple[dict[str, Any], bool]:
        """What the model reads, and whether lm-evaluation-harness cuts it into other tokens."""
        text = self.definition.mode == "text"
        tokens = self.encoder.encode(
            example.prompt,
            example.options,
            turns=example.turns,
            max_length=self.settings.max_length,
            reserve=self.settings.max_new_tokens if text else 0,
            where=f"example {example.key}",
        )
        prompt, options = self._texts(example, tokens)
        row: dict[str, Any] = {"key": example.key, "prompt": prompt}
        if text:
            other = self._cut(prompt) != tokens.prompt
            return {**row, "target": example.target.strip()}, other
        whole = [tokens.prompt + one for one in tokens.targets]
        other = [self._cut(prompt + one) for one in options] != whole
        # White space at the end of a prompt is scored with each option: a sum that all have.
        begins = self._cut(prompt.rstrip())
        by_sum = self.settings.normalize == "none"
        other |= begins != (tokens.prompt[: len(begins)] if by_sum else tokens.prompt)
        lengths = [len(target) for target in tokens.targets]
        row |= {"options": options, "labels": list(example.labels), "lengths": lengths}
        return {**row, "gold": example.gold, "normalize": self.settings.normalize}, other

    def _texts(self, example: Example, tokens: Tokens) -> tuple[str, list[str]]:
        """The text of the tokens: of a chat as they spell it, else as it was cut into them."""
        if not self.encoder.chat:
            prompt = example.prompt.rstrip(" ")
            return prompt, [example.prompt[len(prompt) :] + one for one in example.options]
        prompt = self.encoder.spelt(tokens.prompt)
        whole = [self.encoder.spelt(tokens.prompt + one) for one in tokens.targets]
        return prompt, [one[len(prompt) :] for one in whole]

    def _cut(self, text: str) -> tuple[int, ...]:
        """The tokens of lm-evaluation-harness: what the tokenizer puts first is left out where the
        text begins with it.
        """
        tokenizer = self.encoder.tokenizer
        first = tokenizer.bos_token or tokenizer.eos_token or ""
        begins = bool(first) and text.startswith(first)
        return tuple(tokenizer(text, add_special_tokens=not begins).input_ids)

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """By system, one command; or one for each language, where each has its own adapter."""
        for system, folders in self._systems():
            if len(set(folders.values())) == 1:
                yield system, [self._command(self.name(), next(iter(folders.values())))]
                continue
            names = {one: self.name(one) for one in folders}
            yield system, [self._command(names[one], folder) for one, folder in folders.items()]

    def _systems(self) -> Iterator[tuple[str, dict[str, Path | None]]]:
        """BASE and each system that was scored on test, with its adapter by language; then the
        releases.
        """
        present, scored = self.project.store.ids(), self._scored()
        if BASE not in scored:
            yield BASE.title, dict.fromkeys(self.project.spec.languages)
        for system in scored:
            steps = self.results.of_split(system, TEST)
            yield (
                system.title,
                {
                    language: adapter_of(step.uses, self.project.store)
                    for language, step in steps.items()
                    if step.id in present
                },
            )
        for name, folder in self.releases[0].items():
            yield f"release {name}", dict.fromkeys(self.project.spec.languages, folder)

    @cached_property
    def releases(self) -> tuple[dict[str, Path], list[str]]:
        """The folders of those that are whole, and what is wrong with the others."""
        releases = Releases(self.project.home, self.task)
        whole, broken = dict[str, Path](), list[str]()
        for version in releases.versions():
            try:
                found = releases.open(version)
                whole[found.name] = found.folder.absolute()
            except KoinizeError as error:
                broken.append(f"left out: {error}")
        return whole, broken

    @cached_property
    def results(self) -> Results:
        return Results(self.project, self.task)

    def _scored(self) -> list[System]:
        """The systems of which some language was scored on test."""
        present = self.project.store.ids()
        found = self.results.evaluations.items()
        there = [key[0] for key, step in found if key[2] == TEST and step.id in present]
        return list(dict.fromkeys(there))

    def scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """koinize's own, of what lm-evaluation-harness scores, too."""
        present, found = self.project.store.ids(), {}
        for system in self._scored():
            steps = self.results.of_split(system, TEST)
            rows = {one: self.results.rows(it) for one, it in steps.items() if it.id in present}
            found[system.title] = {
                language: {
                    name: value(metric, rows[language])
                    for name, metric in self.results.metrics.items()
                    if name.replace("-", "_") in NAMES[self.process]
                }
                for language in rows
            }
        return found

    def _command(self, name: str, adapter: Path | None) -> str:
        spec = self.project.spec.base
        base = spec.model if is_hub_id(spec, self.project.root) else str(self.base)
        model = [f"pretrained={base}", f"dtype={spec.dtype}"]
        model += [f"revision={spec.revision}"] if spec.revision else []
        model += [f"peft={adapter.absolute()}"] if adapter else []
        if odd := [one for one in model if "," in one]:
            raise InputError(
                f"'{odd[0]}' has a comma, which lm-evaluation-harness takes for the end of a path",
                remedy="move the project or the model to a path without one",
            )
        words = ["lm_eval", "run", "--model", "hf", "--model_args", ",".join(model)]
        return shlex.join([*words, "--include_path", str(self.out), "--tasks", name])

    def notes(self, rows: int, otherwise: int) -> Iterator[str]:
        """What a user has to know before two numbers are compared."""
        yield (
            "prompts are as the model reads them: leave --apply_chat_template and --num_fewshot "
            "as they are"
        )
        if otherwise:
            yield f"{otherwise} of {rows} rows are cut into other tokens there: scores may differ"
        yield from self.releases[1]
        known = {one.replace("_", "-") for one in NAMES[self.process]}
        if left := [one for one in self.definition.metrics if one not in known]:
            yield f"lm-evaluation-harness does not compute: {', '.join(left)}"
        size = config_of(self.base).get("vocab_size")
        if size is not None and size != len(self.encoder.tokenizer):
            yield (
                f"the model has {size} tokens and its tokenizer {len(self.encoder.tokenizer)}: "
                "under an adapter lm-evaluation-harness cuts the model to the tokenizer's, so "
                "that log-probabilities differ a little"
            )
