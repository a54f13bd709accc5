"""Every mistake in a koinize.yaml, told in full: where it stands, what it is, what to do."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koinize.errors import InputError, ManyErrors
from koinize.spec import load

TOP = (
    "adapters, base, baselines, evaluation, judges, koinize, languages, license, lora, machine, "
    "margins, merge, name, price, store, tasks, training"
)
OPTION_METRICS = (
    "accuracy, accuracy-normalized, free-accuracy, free-macro-f1, label-language, macro-f1, "
    "parsed, precision, recall"
)
METRICS = (
    "accuracy, accuracy-normalized, bert-score, chrf, entity-precision, exact-match, "
    "free-accuracy, free-macro-f1, label-language, macro-f1, not-copied, not-empty, "
    "not-hallucinated, not-repeated, number-precision, number-recall, output-language, "
    "parsed, precision, recall, rouge-1, rouge-2, rouge-l, rouge-lsum"
)
NO_ADDRESS = (
    "is no address of an object store such as s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
    "az://BUCKET/PREFIX"
)
TEXT_FIRST = "names no column; write {text} where the column 'text' belongs"


@pytest.mark.parametrize(
    ("added", "message"),
    [
        # keys that nobody knows, at every level
        ("trainings: {}", "7:1 unknown key 'trainings'; did you mean 'training'?"),
        ("xyz: 1", f"7:1 unknown key 'xyz'; choose one of: {TOP}"),
        ("true: 1", "7:1 unknown key 'true'; did you mean 'store'?"),
        ("training: {epoch: 3}", "7:12 unknown key 'epoch' in training; did you mean 'epochs'?"),
        ("lora: {rank: 3}", "7:8 unknown key 'rank' in lora; choose one of: alpha, dropout, "
            "overrides, r, rslora, seed, targets"),
        ("lora:\n  overrides:\n    de:\n      alfa: 2", "10:7 unknown key 'alfa' in "
            "lora.overrides.de; did you mean 'alpha'?"),
        ("merge: {candidate: [ties]}", "7:9 unknown key 'candidate' in merge; did you mean "
            "'candidates'?"),
        ("merge:\n  candidates:\n    - paper\n    - {recipe: ties, densty: [0.5, 1.0]}",
            "10:22 unknown key 'densty' in merge.candidates[1]; did you mean 'density'?"),
        ("evaluation: {max_lenght: 3}", "7:14 unknown key 'max_lenght' in evaluation; did you mean "
            "'max_length'?"),
        ("price: {per_hour: 1, source: x, date: 2026-01-31, unit: h}", "7:51 unknown key 'unit' in "
            "price; choose one of: currency, date, devices, machine, per_hour, source"),
        ("price: {machine: aws-g5-xlarge, devices: {T4: {per_hour: 1, currency: EUR, source: x, "
            "date: 2026-01-31}}}", "7:1 price: devices: 'T4' is in EUR, and the others in USD; "
            "give all prices in one currency"),
        ("price: {machine: aws-g5-xlarge, devices: {' ': {machine: aws-g6-xlarge}}}",
            "7:1 price: devices: ' ' is no word of a device's name, such as A10G"),
        ("price: {machine: aws-g5-xlarge, devices: {T4: {machine: aws-g6-xlarge, devices: {L4: "
            "{machine: aws-g6-xlarge}}}}}", "7:1 price: devices: the price of 'T4' has devices of "
            "its own"),
        ("price: {machine: aws-g5-xlrage}", "7:9 price.machine: unknown machine 'aws-g5-xlrage'; "
            "did you mean 'aws-g5-xlarge'?"),
        ("price: {machine: aws-g5-xlarge, per_hour: 1, date: 2026-01-31}", "7:1 missing key "
            "'source' in price; add 'source: ...'"),
        ("price: {machine: 3}", "7:9 price.machine: expected text, not 3; write \"3\""),
        ("machine: {worker: 2}", "7:11 unknown key 'worker' in machine; did you mean 'workers'?"),
        # wrong kinds of values
        ("training: {average: 1.5}", "7:12 training.average: expected a number up to 1, not 1.5"),
        ("training: {average: 0.2, patience: 2}", "7:1 training: average: with patience dev "
            "chooses the epoch whose adapter is kept, and no mean of the last steps; remove one of "
            "them"),
        ("training: {epochs: three}", "7:12 training.epochs: expected a whole number, not 'three'"),
        ("training: {epochs: 2.5}", "7:12 training.epochs: expected a whole number, not 2.5"),
        ("training: {epochs: true}", "7:12 training.epochs: expected a whole number, not 'true'"),
        ("training: {epochs: }", "7:12 training.epochs: expected a whole number, but there is "
            "nothing"),
        ("training: {epochs: 0}", "7:12 training.epochs: expected a number from 1 up, not 0"),
        ("training: {learning_rate: fast}", "7:12 training.learning_rate: expected a number, not "
            "'fast'"),
        ("training: {learning_rate: 0}", "7:12 training.learning_rate: expected a number above 0, "
            "not 0"),
        ("training: {learning_rate: .inf}", "7:12 training.learning_rate: expected a finite "
            "number, not inf"),
        ("training: {weight_decay: .nan}", "7:12 training.weight_decay: expected a finite number, "
            "not nan"),
        ("lora: {alpha: .inf}", "7:8 lora.alpha: expected a finite number, not inf"),
        ("lora: {overrides: {de: {alpha: 1.0e400}}}", "7:25 lora.overrides.de.alpha: expected a "
            "finite number, not inf"),
        ("training: {warmup_ratio: 1.5}", "7:12 training.warmup_ratio: expected a number up to 1, "
            "not 1.5"),
        ("lora: {dropout: 1}", "7:8 lora.dropout: expected a number below 1, not 1"),
        ("lora: {rslora: 3}", "7:8 lora.rslora: expected true or false, not 3"),
        ("training: {schedule: lin}", "7:12 training.schedule: expected 'linear', 'cosine' or "
            "'constant', not 'lin'"),
        ("training:", "7:1 training: expected a mapping, but there is nothing"),
        ("training: [1]", "7:1 training: expected a mapping, not a list"),
        ("lora: {overrides: {de: 3}}", "7:20 lora.overrides.de: expected a mapping, not 3"),
        ("lora: {overrides: {de: {r: x}}}", "7:25 lora.overrides.de.r: expected a whole number, "
            "not 'x'"),
        ("baselines: [base, indi]", "7:19 baselines[1]: expected 'base', 'indv', 'cross', "
            "'single', 'comb', 'comb-continued', 'mean' or 'paper', not 'indi'"),
        ("baselines: [base, comb-continued]", "7:1 baselines: 'comb-continued' goes on from "
            "'comb'; list both"),
        ("baselines: base", "7:1 baselines: expected a list, not 'base'; write [base]"),
        # unions say everything that would do
        ("lora: {targets: q_proj}", "7:8 lora.targets: expected 'all-linear' or a list, not "
            "'q_proj'; write [q_proj]"),
        ("lora: {targets: [q_proj, 1]}", '7:26 lora.targets[1]: expected text, not 1; write "1"'),
        ("lora: {targets: []}", "7:8 lora.targets: expected 'all-linear' or 1 or more entries, "
            "not 0"),
        ("machine: {workers: two}", "7:11 machine.workers: expected a whole number or 'auto', not "
            "'two'"),
        ("machine: {threads: 0}", "7:11 machine.threads: expected a number from 1 up or 'auto', "
            "not 0"),
        # merge candidates
        ("merge: {candidates: paper}", "7:9 merge.candidates: expected a list, not 'paper'; write "
            "[paper]"),
        ("merge: {candidates: []}", "7:9 merge.candidates: expected 1 or more entries, not 0"),
        ("merge: {candidates: [ties, knot-ties]}", "7:28 merge.candidates[1]: unknown recipe "
            "'knot-ties'; did you mean 'knots-ties'?"),
        ("merge: {candidates: [{recipe: [ties, tise]}]}", "7:23 merge.candidates[0].recipe: "
            "unknown recipe 'tise'; did you mean 'ties'?"),
        ("merge: {candidates: [{density: 0.5}]}", "7:22 missing key 'recipe' in "
            "merge.candidates[0]; add 'recipe: ...'"),
        ("merge: {candidates: [{recipe: ties, density: [0.5, 7]}]}", "7:37 "
            "merge.candidates[0].density: expected a number up to 1, not 7"),
        ("merge: {candidates: [{recipe: ties, density: []}]}", "7:22 merge.candidates[0]: the "
            "list under 'density' is empty, so there is nothing to try"),
        ("merge: {candidates: [3]}", "7:22 merge.candidates[0]: expected 'paper', 'average', a "
            "recipe's name, or a mapping of merge settings"),
        ("merge: {candidates: [average]}", "1:1 merge.candidates: 'average' is that of a trunk and "
            "its branches; name a recipe, or set training.trunk"),
        ("merge: {candidates: [{recipe: ties, rank: 0}]}", "7:37 merge.candidates[0].rank: rank 0 "
            "is not 'full', a number from 1, or a share between 0 and 1"),
        ("merge: {candidates: [ties], mean_scales: [0]}", "7:43 merge.mean_scales[0]: expected a "
            "number above 0, not 0"),
        ("merge: {candidates: [ties], mean_scales: [.inf]}", "7:43 merge.mean_scales[0]: expected "
            "a finite number, not inf"),
        # names that have to agree
        ("lora: {overrides: {dee: {r: 3}}}", "7:20 unknown language 'dee' in lora.overrides; did "
            "you mean 'de'?"),
        ("lora: {overrides: {sw: {r: 3}}}", "7:20 unknown language 'sw' in lora.overrides; choose "
            "one of: de, en"),
        ("adapters: {moood: {de: x}}", "7:12 unknown task 'moood' in adapters; did you mean "
            "'mood'?"),
        ("adapters: {mood: {fr: x}}", "7:19 unknown language 'fr' in adapters.mood; choose one "
            "of: de, en"),
        ("merge: {candidates: [{recipe: ties, weights: {fr: 2}}]}", "7:47 unknown language 'fr' "
            "in merge.candidates[0].weights; choose one of: de, en"),
        ("merge: {candidates: [{recipe: ties, weights: [{de: 2}, {fr: 2}]}]}", "7:57 unknown "
            "language 'fr' in merge.candidates[0].weights[1]; choose one of: de, en"),
        ("merge: {candidates: [mean, {recipe: mean, groups: [[de], [en, fr]]}]}", "7:63 unknown "
            "language 'fr' in merge.candidates[1].groups[1]; choose one of: de, en"),
        ("merge: {candidates: [{recipe: mean, groups: [[de, en], [de]]}]}", "7:37 "
            "merge.candidates[0].groups: 'de' stands 2 times in the groups; expected each language "
            "in one group, which may be its own"),
        ("merge: {candidates: [{recipe: mean, groups: [[de, en], []]}]}", "7:37 "
            "merge.candidates[0].groups: a group is empty; leave it out, or name its languages"),
        ("merge: {candidates: [{recipe: mean, groups: [de]}]}", "7:46 "
            "merge.candidates[0].groups[0]: expected a list, not 'de'; write [de]"),
        ("merge: {candidates: [{recipe: ties, groups: [[de, en]]}]}", "7:22 "
            "merge.candidates[0]: recipe 'ties' merges in space 'dense', where what a group "
            "becomes has no exact factors of a low rank; merge groups in space 'knots' or 'core', "
            "or by recipe 'mean' or 'sum'"),
        ("merge: {across: [mood]}", "7:9 merge.across: 'mood' alone shares its adapter with no "
            "task; name two or more"),
        ("merge: {across: [mood, moody]}", "7:24 unknown task 'moody' in merge.across; did you "
            "mean 'mood'?"),
        ("margins: {f1: 2}", f"7:11 margins.f1: unknown metric 'f1'; choose one of: {METRICS}"),
        ("margins: {macro-f2: 2}", "7:11 margins.macro-f2: unknown metric 'macro-f2'; did you "
            "mean 'macro-f1'?"),
        ("margins: {accuracy: -2}", "7:11 margins.accuracy: expected a number above 0, not -2"),
        ("machine: {executor: pbs}", "7:11 machine.executor: unknown executor 'pbs'; choose one "
            "of: inline, local, ray"),
        ("store: s4://shared/x", f"7:1 store: {NO_ADDRESS}"),
        ("store: s3://shared/../x", f"7:1 store: {NO_ADDRESS}"),
        ("store: s3://key:secret@shared/x", "7:1 store: is no place for credentials; "
            "docs/store.md says where they come from"),
        ("store: {url: 's3://shared/x?X-Amz-Signature=ab'}", "7:9 store.url: is no place for "
            "credentials; docs/store.md says where they come from"),
        ("store: {cache_gigabytes: 1}", "7:1 missing key 'url' in store; add 'url: ...'"),
        # money
        ("price: {per_hour: cheap, source: x, date: 2026-01-31}", "7:9 price.per_hour: expected a "
            "number, not 'cheap'"),
        ("price: {per_hour: -1, source: x, date: 2026-01-31}", "7:9 price.per_hour: expected a "
            "number from 0 up, not -1"),
        ("price: {per_hour: 1, date: 2026-01-31}", "7:1 missing key 'source' in price; add "
            "'source: ...'"),
        ("price: {per_hour: 1, source: '', date: 2026-01-31}", "7:22 price.source: expected some "
            "text, not ''"),
        ("price: {per_hour: 1, source: x, date: today}", "7:33 price.date: expected a date such "
            "as 2026-01-31, not 'today'"),
        ("price: {per_hour: 1, source: x, date: 2026-01-31T10:00:00}", "7:33 price.date: expected "
            "a date such as 2026-01-31, not '2026-01-31T10:00:00'"),
        ("price: {per_hour: 1, currency: usd, source: x, date: 2026-01-31}", "7:22 "
            "price.currency: expected the three letters of a currency such as USD, not 'usd'"),
    ],
)  # fmt: skip
def test_one_mistake_after_the_tasks(refused, good, added, message):
    assert refused(f"{good}{added}\n") == [f"koinize.yaml:{message}"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("koinize: 1", "koinize: 2", "1:1 koinize: 2 is a newer format than this koinize reads "
            "(1); upgrade koinize"),
        ("koinize: 1", "koinize: 0", "1:1 koinize: expected 1, not 0"),
        ("koinize: 1", "koinize: one", "1:1 koinize: expected 1, not 'one'"),
        ("name: small", "title: small", "1:1 missing key 'name'; add 'name: ...'"),
        ("name: small", "nam: small", "2:1 unknown key 'nam'; did you mean 'name'?"),
        ("name: small", "name: 2026", '2:1 name: expected text, not 2026; write "2026"'),
        ("name: small", "name: a/b", "2:1 name: expected letters, digits, '.', '_' and '-', a "
            "letter or digit first, not 'a/b'"),
        ("small", "s" * 65, f"2:1 name: expected at most 64 characters, not '{'s' * 60}'"),
        ("{model: base}", "base", "3:1 base: expected a mapping, not 'base'"),
        ("{model: base}", "{}", "3:1 missing key 'model' in base; add 'model: ...'"),
        ("{model: base}", "{model: ''}", "3:8 base.model: expected some text, not ''"),
        ("{model: base}", "{model: b, revision: 1234567}", "3:18 base.revision: expected text, "
            'not 1234567; write "1234567"'),
        ("[de, en]", "de", "4:1 languages: expected a list, not 'de'; write [de]"),
        ("[de, en]", "[]", "4:1 languages: expected 1 or more entries, not 0"),
        ("[de, en]", "[de, en, de]", "4:21 languages[2]: 'de' stands twice; remove one"),
        ("[de, en]", "[de, 7]", '4:17 languages[1]: expected text, not 7; write "7"'),
        ("[de, en]", "[de, 'e n']", "4:17 languages[1]: expected a language code such as en or "
            "zh-Hant, not 'e n'"),
        ("[de, en]", "[de, comb]", "4:1 languages: 'comb' names an adapter of all languages, so no "
            "language"),
        ("mood:", "mo od:", "6:3 tasks.mo od: expected letters, digits, '.', '_' and '-', a "
            "letter or digit first, not 'mo od'"),
        ("kind: classify, ", "", "6:3 missing key 'kind' in tasks.mood; add 'kind: ...'"),
        ("kind: classify", "kind: clasify", "6:10 tasks.mood.kind: unknown kind 'clasify'; did "
            "you mean 'classify'?"),
        ("kind: classify", "kind: 3", '6:10 tasks.mood.kind: expected text, not 3; write "3"'),
        ("labels: [good, bad], ", "", "6:3 missing key 'labels' in tasks.mood; add 'labels: ...'"),
        ("[good, bad]", "[good]", "6:26 tasks.mood.labels: expected 2 or more entries, not 1"),
        ("[good, bad]", "[good, good]", "6:26 tasks.mood.labels: 'good' stands twice"),
        ('"{text}"', "text", f"6:47 tasks.mood.prompt: the template 'text' {TEXT_FIRST}"),
        ('"{text}"', '{de: "{text}", en: [1]}', "6:70 tasks.mood.prompt.en: expected text, not a "
            "list"),
        ('"{text}"', "[a]", "6:47 tasks.mood.prompt: expected text or a mapping, not a list"),
        ('"{text}"', '{de: "{text}"}', "6:3 tasks.mood: there is no prompt for language 'en'; "
            "expected one for every language; there is one for de; add 'en: ...' under prompt"),
        ('"{text}"', '"{text}", options: x', "6:65 unknown key 'options' in tasks.mood; choose "
            "one of: answers, data, free, key, kind, labels, margins, metrics, prompt, target, "
            "verbalizers"),
        ('"{text}"', '"{text}", verbalizer: {}', "6:65 unknown key 'verbalizer' in tasks.mood; "
            "did you mean 'verbalizers'?"),
        ('"{text}"', '"{text}", metrics: [acc]', "6:75 tasks.mood.metrics[0]: unknown metric "
            f"'acc'; choose one of: {OPTION_METRICS}"),
        ('"{text}"', '"{text}", metrics: [accuracy, rouge-l]', "6:85 tasks.mood.metrics[1]: "
            f"'rouge-l' does not fit a task of kind 'classify'; choose one of: {OPTION_METRICS}"),
        ('"{text}"', '"{text}", metrics: [accuracy, parsed]', "6:85 tasks.mood.metrics[1]: "
            "'parsed' reads what the model writes freely; add `free: true`"),
        ('"{text}"', '"{text}", free: true, metrics: [parsed]', "6:87 tasks.mood.metrics[0]: "
            "'parsed' cannot be the first: it chooses on dev, where nothing is written; begin with "
            "a metric of the options, such as macro-f1"),
        ('"{text}"', '"{text}", free: true, metrics: [accuracy, label-language]',
            "6:97 tasks.mood.metrics[1]: label-language needs `verbalizers` per language: with one "
            "set for all none is foreign; take the metric out"),
        ('"{text}"', '"{text}", metrics: accuracy', "6:65 tasks.mood.metrics: expected a list, "
            "not 'accuracy'; write [accuracy]"),
    ],
)  # fmt: skip
def test_one_mistake_in_the_first_lines(refused, good, old, new, message):
    assert old in good
    found = refused(good.replace(old, new, 1))
    if new == "title: small":  # too far from any key to be taken for a misspelt one
        assert found.pop() == f"koinize.yaml:2:1 unknown key 'title'; choose one of: {TOP}"
    assert found == [f"koinize.yaml:{message}"]


def test_keys_of_other_task_kinds(refused, good):
    text = good.replace("kind: classify, labels: [good, bad]", "kind: choose, optoins: o")
    assert refused(text) == [
        "koinize.yaml:6:24 unknown key 'optoins' in tasks.mood; did you mean 'options'?"
    ]
    text = good.replace("kind: classify, labels: [good, bad]", "kind: generate, stop: [1, '']")
    assert refused(text) == ["koinize.yaml:6:36 tasks.mood.stop[1]: expected some text, not ''"]


def test_all_mistakes_come_at_once_in_the_order_of_the_file(refused):
    text = """\
koinize: 1
name: tiny
base: {model: base, dtyp: float32}
languages: [de, en, ja]
tasks:
  mood:
    kind: classify
    labels: [good, bad]
    verbalizer: {good: "+", bad: "-"}
    prompt: {de: "{text} =", en: "{text} ="}
  tone:
    kind: classify
    labels: [good, bad]
    metrics: [acuracy]
    prompt: {de: "{text} =", en: "{text} ="}
  moo:
    kind: clasify
lora: {r: four, alpha: 8, overrides: {sw: {r: 3}, de: {rr: 2}}}
training: {epochs: 4, learning_rate: 2.0e-2, batch_size: -4}
merge:
  candidates:
    - {recipe: ties, densty: [0.5, 1.0]}
    - knot-ties
    - {recipe: [ties, mean], density: [0.5, 1.5], weights: {fr: 1}}
adapters: {nood: {de: x}}
price: {per_hour: "0.10", source: an assumption, date: 2026-11-31}
"""
    assert refused(text) == [
        "koinize.yaml:3:21 unknown key 'dtyp' in base; did you mean 'dtype'?",
        "koinize.yaml:9:5 unknown key 'verbalizer' in tasks.mood; did you mean 'verbalizers'?",
        "koinize.yaml:11:3 tasks.tone: there is no prompt for language 'ja'; expected one for "
        "every language; there is one for de, en; add 'ja: ...' under prompt",
        "koinize.yaml:14:15 tasks.tone.metrics[0]: unknown metric 'acuracy'; "
        "did you mean 'accuracy'?",
        "koinize.yaml:17:5 tasks.moo.kind: unknown kind 'clasify'; did you mean 'classify'?",
        "koinize.yaml:18:8 lora.r: expected a whole number, not 'four'",
        "koinize.yaml:18:39 unknown language 'sw' in lora.overrides; choose one of: de, en, ja",
        "koinize.yaml:18:56 unknown key 'rr' in lora.overrides.de; did you mean 'r'?",
        "koinize.yaml:19:46 training.batch_size: expected a number from 1 up, not -4",
        "koinize.yaml:22:22 unknown key 'densty' in merge.candidates[0]; did you mean 'density'?",
        "koinize.yaml:23:7 merge.candidates[1]: unknown recipe 'knot-ties'; "
        "did you mean 'knots-ties'?",
        "koinize.yaml:24:7 merge.candidates[2]: recipe 'mean' does not use 'density'; it uses "
        "dialect, dtype, groups, overrides, rank, scale, weights",
        "koinize.yaml:24:30 merge.candidates[2].density: expected a number up to 1, not 1.5",
        "koinize.yaml:24:61 unknown language 'fr' in merge.candidates[2].weights; "
        "choose one of: de, en, ja",
        "koinize.yaml:25:12 unknown task 'nood' in adapters; did you mean 'mood'?",
        "koinize.yaml:26:50 price.date: expected a date such as 2026-01-31, not '2026-11-31'",
    ]


def test_one_mistake_is_an_error_of_its_own_and_many_are_many(tmp_path, good):
    path = tmp_path / "koinize.yaml"
    path.write_text(good + "training: {epochs: x}\n")
    with pytest.raises(InputError) as caught:
        load(path)
    assert type(caught.value) is InputError
    path.write_text(good + "training: {epochs: x, epocks: 1}\n")
    with pytest.raises(ManyErrors) as caught:
        load(path)
    assert [error.where for error in caught.value.errors] == [
        "koinize.yaml:7:12",
        "koinize.yaml:7:23",
    ]


def test_a_newer_format_is_not_read_any_further(refused):
    assert refused("koinize: 7\nnew_section: {}\n") == [
        "koinize.yaml:1:1 koinize: 7 is a newer format than this koinize reads (1); upgrade koinize"
    ]


def test_a_file_without_a_version_is_of_the_first_format(loaded, good):
    assert loaded(good.removeprefix("koinize: 1\n")).koinize == 1


def test_norwegian_is_a_language(loaded, good):
    spec = loaded(good.replace("[de, en]", "[no, de]"))
    assert spec.languages == ("de", "no")


LINES = st.lists(
    st.sampled_from(
        [
            "koinize: 1",
            "name: a",
            "name: [",
            "base: {model: m}",
            "base: 3",
            "languages: [de, 3, {a: 1}]",
            "languages: {de: 1}",
            "tasks: {a: {kind: classify, labels: [a, b]}, b: 3, c: {kind: [1]}}",
            "tasks: {a: {kind: choose, metrics: [[1], {a: 1}], data: {de: {x: 1}}}}",
            "tasks: [1]",
            "lora: {overrides: [1], targets: {a: 1}}",
            "adapters: {a: 3, b: [1]}",
            "merge: {candidates: [{recipe: {a: 1}}, [1], {recipe: ties, weights: [3, [1]]}]}",
            "merge: 3",
            "margins: [1]",
            "price: {per_hour: [1], date: {}}",
            "machine: {executor: [local], workers: [1]}",
            "? [1, 2]\n: 3",
            "a: !tag {b: 1}",
        ]
    ),
    max_size=8,
)


@given(LINES)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
)
def test_whatever_stands_in_a_file_the_answer_is_an_input_error(tmp_path, lines):
    """Nothing here is a specification, and nothing ends in a traceback or without a place."""
    path = tmp_path / "koinize.yaml"
    path.write_text("\n".join([*lines, "zz: 1"]))
    with pytest.raises(InputError) as caught:
        load(path)
    assert all(line.startswith("koinize.yaml:") for line in str(caught.value).splitlines())


TWO = """koinize: 1
name: shop
base: {model: google/gemma-3-270m}
languages: [de, en]
tasks:
  mood: {kind: classify, labels: [good, bad], prompt: "{text}"}
  tone: {kind: classify, labels: [good, bad], prompt: "{text}"}
"""


@pytest.mark.parametrize(
    ("added", "messages"),
    [
        (
            "merge: {across: [mood, tone, mood]}",
            ["8:30 merge.across[2]: 'mood' stands twice; remove one"],
        ),
        (
            "merge: {across: [mood, tone], candidates: [{recipe: mean, weights: {tune: 2}, "
            "groups: [[mood.de], [tone.fr]]}]}",
            [
                "8:69 unknown language or task 'tune' in merge.candidates[0].weights; did you mean "
                "'tone'?",
                "8:100 unknown language or task 'tone.fr' in merge.candidates[0].groups[1]; did "
                "you mean 'tone'?",
            ],
        ),
        (
            "merge: {across: [mood, tone], scale: search}",
            [
                "8:1 merge: scale: a search goes by the dev rows of one task, and tasks that share "
                "an adapter are chosen for together; list scales in the candidates"
            ],
        ),
        (
            "merge: {across: [mood, tone], choose: halving}",
            [
                "8:1 merge: choose: a search goes by the dev rows of one task, and tasks that "
                "share an adapter are chosen for together; set it to all"
            ],
        ),
        (
            "merge: {across: [mood, tone], candidates: [sum]}\ntraining: {trunk: joint}",
            [
                "1:1 merge.across: with a trunk every task is a generation of its own; remove it, "
                "or set training.trunk to none"
            ],
        ),
    ],
)
def test_tasks_that_cannot_share_an_adapter(refused, added, messages):
    assert [one.removeprefix("koinize.yaml:") for one in refused(f"{TWO}{added}\n")] == messages


def test_a_task_that_shares_an_adapter_is_called_like_no_language(refused):
    text = TWO.replace("languages: [de, en]", "languages: [de, mood]")
    assert refused(text + "merge: {across: [mood, tone]}\n") == [
        "koinize.yaml:8:18 merge.across: 'mood' is a language too, so a weight may mean either; "
        "give the task another name"
    ]
