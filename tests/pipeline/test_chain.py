"""The whole chain without weights: what would fail after hours of training is said before them."""

import json
import subprocess

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, modeling_layers

from koinize.errors import InputError, ManyErrors
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.pipeline import Project, dry_run
from koinize.pipeline.chain import faults
from koinize.pipeline.dry_run import Merge, Question
from koinize.settings import LoraSpec
from koinize.store.typed import typed
from tests.peft_folders import configured, save
from tests.pipeline.conftest import SPEC, Small

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
WHOLE = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "mixtral": {"num_local_experts": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "full_attn_idxs": None},
}
PEFTS_SUM = {"recipe": "sum", "dialect": "peft"}  # which adds up factors, so ranks have to agree


@pytest.fixture
def ask(tmp_path):
    def found(family="llama", *, more=None, **question):
        AutoConfig.for_model(family, **SHAPE | WHOLE.get(family, {})).save_pretrained(
            tmp_path / "base"
        )
        given = {"dtype": "float32", "adapter_dtype": "float32", "texts": True, **question}
        return [str(one) for one in faults(Question(str(tmp_path / "base"), "x/base", **given))]

    return found


def lora(**settings):
    return LoraSpec(**settings).model_dump(mode="json")


@pytest.mark.parametrize("family", WHOLE)
def test_a_base_that_goes_the_whole_way(ask, family):
    merges = [Merge("knots", {"recipe": "knots-ties", "density": 0.5}, {"de": "a", "en": "b"}, "b")]
    assert ask(family, trained={"a": lora(), "b": lora(r=8)}, merges=merges) == []


def test_layers_that_are_run_again(ask, monkeypatch):
    """All families of transformers have some; a model of somebody's own may have none."""
    assert ask(trained={"a": lora()}, recomputed=True) == []
    monkeypatch.setattr(modeling_layers, "GradientCheckpointingLayer", str)
    (said,) = ask(trained={"a": lora()}, recomputed=True)
    assert said == (
        "machine.gradient_checkpointing this base has no layers that could be run again on the way "
        "back; take it out; lower training.batch_tokens where memory is short"
    )


def test_weights_that_cannot_be_in_4_bit(ask):
    assert ask(trained={"a": lora()}, in_4bit=True) == []
    (said,) = ask("gpt2", trained={"a": lora()}, in_4bit=True)
    assert said == (
        "training.load_in_4bit a base of the family 'gpt2' cannot have its weights in 4 bit: it "
        "keeps them as inputs x outputs, which in 4 bit are turned around; take load_in_4bit out, "
        "or choose another base model"
    )
    (said,) = ask("mamba", texts=False, trained={"a": lora()}, in_4bit=True)
    assert said.startswith("training.load_in_4bit a base of the family 'mamba' cannot have its")


def test_targets_that_the_base_does_not_have(ask):
    (said,) = ask(trained={"a": lora(targets=("nothing",)), "b": lora()})
    assert said.startswith("lora.targets no LoRA layers fit base model 'x/base': ")


def test_targets_that_no_merge_can_read(ask):
    (said,) = ask(trained={"a": lora(targets=("embed_tokens",))})
    assert said.startswith("lora.targets name the module 'model.embed_tokens', which is no linear")


def test_ranks_that_a_merge_does_not_take(ask):
    """Adapters that only their trainings would have made, and a merge that would refuse them."""
    merges = [
        Merge("knots", {"recipe": "knots-ties", "density": 0.5}, {"de": "a", "en": "b"}),
        Merge("sum as in PEFT", PEFTS_SUM, {"de": "a", "en": "b"}),
    ]
    assert ask(trained={"a": lora(), "b": lora(r=8)}, merges=merges) == [
        "merge 'sum as in PEFT': module 'model.layers.0.mlp.down_proj' has rank 8 in 'en' and 16 "
        "in 'de', and space 'factor' adds up factors; merge in space 'dense', 'knots' or 'core'"
    ]


def test_a_base_that_writes_no_texts(ask):
    (said,) = ask("mamba")
    assert said.startswith("base.model 'x/base' has no cache that is carried from one token to the")
    assert ask("mamba", texts=False, trained={"a": lora()}) == []


def test_factors_of_fewer_bits_than_the_base(ask):
    (said,) = ask(adapter_dtype="bfloat16")
    assert said.startswith("training.adapter_dtype bfloat16 factors do not go with a float32 base")
    assert ask(adapter_dtype="bfloat16", dtype="bfloat16", trained={"a": lora()}) == []


def test_a_base_of_a_class_that_nobody_knows(ask, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "not-yet-known"}')
    question = Question(str(tmp_path / "base"), "x/base", "auto", "float32", texts=False)
    (said,) = map(str, faults(question))
    assert said.startswith("base.model 'x/base' cannot be loaded as a causal language model: ")


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"model.layers.0.self_attn.q_proj": (32, 32)}, None),
        ({"layers.0.self_attn.q_proj": (32, 32)}, None),  # of the model without its head
        ({"model.layers.0.self_attn.q_proj": (32, 64)}, "as 32 x 64, and it is [32, 32] in the"),
        ({"model.layers.7.self_attn.q_proj": (32, 32)}, "and the base has no such layer"),
    ],
)
def test_an_adapter_from_elsewhere(ask, tmp_path, shapes, said):
    folder = save(tmp_path / "de", 1, shapes=shapes, target_modules=["q_proj"])
    configured(folder, base_model_name_or_path="x/base")
    found = ask(given={"a": str(folder)}, merges=[Merge("mean", {"recipe": "mean"}, {"de": "a"})])
    assert len(found) == (said is not None)
    assert all(said in one and str(folder) in one for one in found)


@pytest.mark.parametrize(
    ("experts", "wrong"),
    [(4, []), (3, ["adapts 'model.layers.1.mlp.experts[0]' of 3 experts, and the base has 4"])],
)
def test_an_adapter_of_experts_from_elsewhere(ask, tmp_path, experts, wrong):
    folder, place = tmp_path / "de", "base_model.model.model.layers.1.mlp.experts"
    folder.mkdir()
    shapes = {
        f"{place}.lora_A.weight": (2 * experts, 48),
        f"{place}.lora_B.weight": (32, 2 * experts),
    }
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "x/base", "r": 2, "lora_alpha": 2}
    config |= {"target_modules": [], "target_parameters": ["experts.down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = ask("mixtral", given={"a": str(folder)}, texts=False)
    assert [one.partition(";")[0] for one in found] == [f"{folder} {one}" for one in wrong]
    (said,) = ask("llama", given={"a": str(folder)}, texts=False)
    assert "adapts 'model.layers.1.mlp.experts[0]', and the base has no such layer" in said


@pytest.fixture
def asked(monkeypatch):
    """The questions that the program got, which is called in this process."""
    questions = []

    def run(arguments, **more):
        assert arguments[-1] == "koinize.pipeline.chain"
        questions.append(typed(Question, json.loads(more["input"])))
        found = [
            {"what": one.what, "where": one.where, "expected": one.expected, "remedy": one.remedy}
            for one in faults(questions[-1])
        ]
        return subprocess.CompletedProcess(arguments, 0, json.dumps(found))

    monkeypatch.setattr(dry_run.subprocess, "run", run)
    return questions


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a real base, and nothing remembered."""
    monkeypatch.setenv("KOINIZE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    root.mkdir()
    small = Small(root)
    write_tiny_base(root / "base", family="llama")
    return small


@pytest.mark.slow
def test_the_program_is_run_and_its_answer_read(project, tmp_path):
    project.spec(SPEC + "lora: {targets: [nothing]}\n")
    with pytest.raises(InputError, match=r"lora\.targets no LoRA layers fit base model 'base'"):
        Project.at(project.root / "koinize.yaml").plan()
    project.spec(SPEC)
    assert Project.at(project.root / "koinize.yaml").plan().missing
    assert len(list(tmp_path.glob("cache/dry-runs/*"))) == 1


def test_a_plan_says_it_and_a_run_trains_nothing(project, asked, tmp_path):
    project.spec(SPEC + "lora: {targets: [nothing]}\n")
    opened = Project.at(project.root / "koinize.yaml")
    with pytest.raises(InputError, match=r"lora\.targets no LoRA layers fit base model 'base'"):
        opened.plan()
    with pytest.raises(InputError, match=r"lora\.targets no LoRA layers fit base model 'base'"):
        opened.run(None, lambda _: None)
    assert not opened.store.ids()
    assert not list(tmp_path.glob("cache/dry-runs/*"))  # a refusal is asked for again


def test_what_was_in_order_is_not_asked_again(project, asked):
    def plan():
        Project.at(project.root / "koinize.yaml").plan()
        return len(asked)

    assert [plan(), plan()] == [1, 1]
    project.rows("de", "train", [f"other {n}" for n in range(4)])  # rows change nothing here
    assert plan() == 1
    project.spec(SPEC + "lora: {r: 2}\n")
    assert plan() == 2
    project.spec(SPEC)
    assert plan() == 2
    (project.root / "base" / "config.json").write_text(
        (project.root / "base" / "config.json").read_text() + "\n"
    )
    assert plan() == 3


def test_what_is_asked(project, asked):
    """Every shape that is trained, once, and every merge by the adapters that it takes."""
    project.spec(
        SPEC.replace("[paper]", "[knots-ties]") + "lora: {r: 4, overrides: {de: {r: 2}}, seed: 3}\n"
    )
    Project.at(project.root / "koinize.yaml").plan()
    (question,) = asked
    ranks = {key: one["r"] for key, one in question.trained.items()}
    assert sorted(ranks.values()) == [2, 4]
    shapes = [{one: ranks[key] for one, key in merge.adapters.items()} for merge in question.merges]
    assert shapes == [{"en": 4, "de": 2}] * 3  # knots-ties and two means
    assert not question.texts


def test_a_pattern_of_a_search_that_matches_nothing(project, asked):
    """Before any training, although the merges that will have it are not proposed yet."""
    space = "{recipe: [ties, sum], trials: 8, modules: {'%s': {low: 1, high: 2}}}"
    for language in ("de", "en"):
        project.rows(language, "dev", [f"{language} dev {n}" for n in range(60)])
    for pattern in ("mlp.*", "mlp-*"):
        search = f"choose: halving, explore: {space % pattern}"
        project.spec(SPEC.replace("candidates: [paper]", f"candidates: [ties], {search}"))
        opened = Project.at(project.root / "koinize.yaml")
        if pattern == "mlp.*":
            assert opened.plan().missing
    with pytest.raises(ManyErrors) as refused:
        opened.plan()
    assert [str(one) for one in refused.value.errors] == [
        f"merge '{recipe} of merge.explore': the override 'mlp-*' matches no module; expected a "
        "glob over names such as 'model.layers.0.mlp.down_proj'"
        for recipe in ("ties", "sum")
    ]
    right, _ = asked
    assert sum(one.title.endswith("of merge.explore") for one in right.merges) == 2


def test_a_trunk_is_trained_and_merged_with(project, asked):
    project.spec(SPEC.replace("{epochs: 2}", "{epochs: 2, trunk: 0.5}").replace("paper", "ties"))
    Project.at(project.root / "koinize.yaml").plan()
    (question,) = asked
    (trained,) = question.trained
    trunks = [merge.trunk for merge in question.merges if merge.settings["recipe"] == "ties"]
    assert trunks == [trained]


def test_nothing_is_asked_where_nothing_is_trained(project, asked):
    opened = Project.at(project.root / "koinize.yaml")
    steps = [step for step in opened.steps if step.kind != "train"]
    assert opened.plan(asked=steps).missing
    assert asked == []


@pytest.mark.parametrize(
    "program",
    [
        subprocess.TimeoutExpired("chain", 1),
        subprocess.CalledProcessError(1, "chain"),
        "what is this?\n",
        json.dumps([{"what": 5}]),
        "",
    ],
)
def test_a_program_that_finds_no_end_refuses_nothing(project, monkeypatch, caplog, program):
    """What could not be tried is said, and not taken for an answer."""

    def run(arguments, **_):
        if isinstance(program, Exception):
            raise program
        return subprocess.CompletedProcess(arguments, 0, program)

    monkeypatch.setattr(dry_run.subprocess, "run", run)
    assert Project.at(project.root / "koinize.yaml").plan().missing
    assert "could not be tried beforehand" in caplog.text
    assert not list(project.root.parent.glob("cache/dry-runs/*"))
