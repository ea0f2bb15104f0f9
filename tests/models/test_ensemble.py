"""Ensembles: members that differ, trained in one run, on one scale."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import orjson

from models import transforms
from models.errors import BadArtifact, BadOptions
from models.gateway import load_reward_model, score_here
from models.local_judge_options import RewardModelOptions
from models.local_judges import RewardModelJudge
from models.neural.ensemble import Member, MemberEvents
from models.neural.evaluate import outputs
from models.neural.loop import Trainer
from models.neural.process import Events, Stop
from models.neural.store import pack
from models.neural.train import work
from models.pairs import pairs_path, read_pairs
from models.saved import read_unit
from models.training import TrainingConfig
from models.workdir import read_events
from tests.models import pictured
from tests.models.ensembling import (
    CONVERSATIONS,
    CPU,
    FAST,
    SCORED,
    TEST,
    TRAIN,
    VALIDATION,
    Quiet,
    ensemble_of,
    prepare,
    train,
    weights_of,
)
from tests.models.planted import write_run

pytestmark = pytest.mark.neural


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three members with priors on hashed words: their folder, metrics and what they told."""
    run = prepare(tmp_path_factory.mktemp("three") / "run", "hashing", prior_scale=1.0)
    emit = Quiet()
    return run, train(run, emit=emit), emit.told


# One model is as ever -----------------------------------------------------------------------------


def test_one_member_is_written_and_kept_as_if_there_were_no_ensembles():
    config = TrainingConfig(members=1, prior_scale=0.0)
    assert not {"members", "prior_scale"} & config.model_dump(mode="json").keys()
    assert b"members" not in config.model_dump_json().encode()
    # Of a checkpoint made before there were ensembles.
    assert config.fingerprint("data") == "4e3d90a785bad06c"
    assert TrainingConfig(members=2).fingerprint("data") != config.fingerprint("data")
    assert TrainingConfig(prior_scale=1).fingerprint("data") != config.fingerprint("data")


def test_the_first_member_is_byte_for_byte_the_model_of_a_single_training(tmp_path):
    one = prepare(tmp_path / "one", "hashing", members=1)
    assert work(one, emit=Events(None), stop=Stop()) == 0
    two = prepare(tmp_path / "two", "hashing", members=2)
    train(two)
    assert weights_of(one / "artifact") == weights_of(two / "artifact" / "member-1")
    assert weights_of(one / "artifact") != weights_of(two / "artifact" / "member-2")


def test_every_member_is_what_a_training_by_its_seed_makes_alone(three, tmp_path):
    run, _, _ = three
    config = TrainingConfig.read(run)
    alone = prepare(
        tmp_path / "run", "hashing", members=1, prior_scale=1.0, seed=config.member(2).seed
    )
    assert work(alone, emit=Events(None), stop=Stop()) == 0
    assert weights_of(alone / "artifact") == weights_of(run / "artifact" / "member-3")


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", SCORED)
def test_every_objective_with_scores_makes_an_ensemble(objective, tmp_path):
    run = prepare(tmp_path / "run", "hashing", objective=objective, members=2, prior_scale=0.5)
    metrics = train(run)
    told = metrics["ensemble"]
    assert metrics["accuracy"] > 0.75, told
    assert [one["n"] for one in told["each"]] == [120, 120]
    scores = load_reward_model(run / "artifact").score_members(CONVERSATIONS)
    assert scores.shape == (2, len(CONVERSATIONS))
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_an_objective_without_one_score_is_refused_in_words():
    with pytest.raises(BadOptions, match="compares two answers directly") as refused:
        TrainingConfig(objective="gpm", members=2)
    assert "one member" in refused.value.advice
    assert TrainingConfig(objective="gpm", members=1).members == 1


@pytest.mark.parametrize("kind", ["hashing", "frozen"])
def test_every_trained_parameter_of_every_member_moves_and_no_prior_does(kind, tmp_path):
    torch.set_num_threads(1)
    run = prepare(tmp_path / "run", kind, members=2, prior_scale=1.0, evaluate_every=1000)
    whole = ensemble_of(run)
    for number in range(2):
        fresh = Member(whole, number)
        fresh.load()
        fresh.stores = fresh.encode()
        fresh.select()
        before = {k: v.clone() for k, v in fresh.backbone.module.state_dict().items()}
        trained = Member(whole, number)
        saved = trained.run()
        assert saved["steps"] > 1
        after = trained.backbone.module.state_dict()
        learned = {n for n, p in trained.backbone.module.named_parameters() if p.requires_grad}
        fixed = {name for name in after if "prior" in name}
        assert fixed
        assert learned
        assert not any(torch.equal(before[name], after[name]) for name in learned)
        assert all(torch.equal(before[name], after[name]) for name in fixed)


def test_every_parameter_of_a_transformer_with_a_prior_moves(tmp_path):
    torch.set_num_threads(1)
    run = prepare(tmp_path / "run", "bert", members=2, prior_scale=1.0)
    member = Member(ensemble_of(run), 1)
    member.load()
    member.stores = member.encode()
    member.select()
    before = {k: v.clone() for k, v in member.backbone.module.state_dict().items()}
    member.resume()
    member.train()
    after = member.backbone.module.state_dict()
    fixed = [name for name in after if name.endswith((".0.prior", ".0.factor"))]
    assert len(fixed) == 2
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (name in fixed or "position_ids" in name), name


def test_members_differ_and_agree_on_what_the_data_say(three):
    run, metrics, _ = three
    told = metrics["ensemble"]
    model = load_reward_model(run / "artifact")
    scores = model.score_members(CONVERSATIONS)
    assert np.abs(scores[0] - scores[1]).max() > 0.01
    assert 0.5 < told["correlation"] < 0.9999
    assert 0 <= told["disagree"] < 0.5
    assert told["disagree_n"] == 80
    best = max(one["accuracy"] for one in told["each"])
    assert metrics["accuracy"] >= best - 0.1


def test_a_prior_makes_members_disagree_more(tmp_path):
    found = {}
    for scale in (0.0, 2.0):
        run = prepare(tmp_path / f"run-{scale}", "hashing", members=2, prior_scale=scale)
        found[scale] = train(run)["ensemble"]
    assert found[2.0]["variance"] > 3 * found[0.0]["variance"]
    assert found[2.0]["correlation"] < found[0.0]["correlation"]


@pytest.mark.parametrize("kind", ["hashing", "bert", "qwen", "frozen"])
def test_a_prior_varies_by_its_scale_over_responses(kind, tmp_path):
    torch.set_num_threads(1)
    run = prepare(tmp_path / "run", kind, members=1, prior_scale=3.0)
    plain = prepare(tmp_path / "plain", kind, base=tmp_path / f"base-{kind}", members=1)
    told = []
    for folder in (run, plain):
        config = TrainingConfig.read(folder)
        trainer = Trainer(folder, config, device=CPU, emit=Events(None), stop=Stop())
        trainer.load()
        trainer.stores = trainer.encode()
        trainer.select()
        rows = trainer.stores["train"].sequences(trainer.plans[0].rows)
        told.append(outputs(trainer.backbone, trainer.stores["train"], rows, lambda: None))
    prior = told[0] - told[1]
    spread = float(prior.std(correction=0))
    if kind in ("bert", "qwen"):  # untrained, their states of any two texts are nearly the same
        assert 0.001 < spread < 3.1
    else:
        assert spread == pytest.approx(3.0, rel=0.02)
    assert abs(float(prior.mean())) < 30, "not one large constant"


# Saved and loaded ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hashing", "bert", "frozen"])
def test_a_saved_ensemble_scores_as_its_members_did(kind, tmp_path):
    torch.set_num_threads(1)
    # Of a tiny BERT a prior leaves an offset of many deviations, which single precision rounds.
    run = prepare(tmp_path / "run", kind, members=2, prior_scale=0.0 if kind == "bert" else 1.0)
    whole = ensemble_of(run)
    expected = []
    for number in range(2):
        member = Member(whole, number)
        member.run()
        store = pack(member.backbone.encode(CONVERSATIONS))
        found = outputs(member.backbone, store, np.arange(len(CONVERSATIONS)), lambda: None)
        expected.append(member.objective.scores(found).double().numpy())
    metrics = ensemble_of(run).run()
    model = load_reward_model(run / "artifact", device="cpu")
    scales = [(one["center"], one["scale"]) for one in metrics["ensemble"]["each"]]
    standard = np.stack(
        [(raw - center) / scale for raw, (center, scale) in zip(expected, scales, strict=True)]
    )
    found = model.score_members(CONVERSATIONS)
    assert found == pytest.approx(standard, abs=1e-5)
    assert model.score(CONVERSATIONS) == pytest.approx(standard.mean(axis=0), abs=1e-5)
    assert model.score([]).shape == (0,)
    for number, raw in enumerate(expected):  # each folder is a model by itself
        alone = load_reward_model(run / "artifact" / f"member-{number + 1}", device="cpu")
        assert alone.score(CONVERSATIONS) == pytest.approx(raw, abs=1e-5)


@pytest.mark.parametrize("kind", ["pixels", "clip"])
def test_members_that_read_pictures_keep_their_priors(kind, tmp_path):
    torch.set_num_threads(1)
    base = "" if kind == "pixels" else f":{pictured.clip(tmp_path / 'base')}"
    run = tmp_path / "run"
    pairs = pictured.make_pairs(run, 24, seed=0)
    write_run(
        run, train=pairs, validation=pairs[:12], test=pairs[:12], backbone=f"{kind}{base}",
        options={"epochs": 2}, members=2, prior_scale=1.0,
    )  # fmt: skip
    whole = ensemble_of(run)
    read = list(read_pairs(pairs_path(run, "test")))  # with the places of their pictures
    conversations = [(pair.prompt, pair.chosen) for pair in read[:5]]
    expected = []
    for number in range(2):
        member = Member(whole, number)
        member.run()
        store = pack(member.backbone.encode(conversations))
        found = outputs(member.backbone, store, np.arange(5), lambda: None)
        expected.append(member.objective.scores(found).double().numpy())
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    whole.run()
    for number, raw in enumerate(expected):
        alone = load_reward_model(run / "artifact" / f"member-{number + 1}", device="cpu")
        assert alone.score(conversations) == pytest.approx(raw, abs=1e-5)
    assert load_reward_model(run / "artifact", device="cpu").score(conversations).shape == (5,)


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_each_member_of_a_transformer_loads_in_plain_transformers(kind, tmp_path):
    from transformers import AutoModelForSequenceClassification

    run = prepare(tmp_path / "run", kind, members=2, prior_scale=1.0)
    train(run)
    about = orjson.loads((run / "artifact" / "touchstone.json").read_bytes())
    assert [one["folder"] for one in about["members"]] == ["member-1", "member-2"]
    for one in about["members"]:
        folder = run / "artifact" / one["folder"]
        own = load_reward_model(folder, device="cpu")
        plain, found = AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True
        )
        assert not found["missing_keys"]
        assert not found["unexpected_keys"]
        encoded = own.backbone.encode(CONVERSATIONS)
        ends = np.cumsum(encoded.lengths)
        rows = np.split(encoded.ids.astype(np.int64), ends[:-1])
        with torch.no_grad():
            scores = [plain.eval()(torch.tensor(row)[None]).logits.item() for row in rows]
        assert own.score(CONVERSATIONS) == pytest.approx(scores, abs=1e-4)


def test_low_rank_members_keep_their_priors_when_merged(tmp_path):
    run = prepare(tmp_path / "run", "bert", members=2, prior_scale=1.0, options={"lora_rank": 2})
    torch.set_num_threads(1)
    member = Member(ensemble_of(run), 1)
    member.run()
    store = pack(member.backbone.encode(CONVERSATIONS))
    found = outputs(member.backbone, store, np.arange(len(CONVERSATIONS)), lambda: None)
    alone = load_reward_model(member.folder, device="cpu").score(CONVERSATIONS)
    assert alone == pytest.approx(member.objective.scores(found).numpy(), abs=1e-5)


def test_members_stand_on_one_scale_of_reference_answers(three):
    run, metrics, _ = three
    answers = [(p.prompt, side) for p in VALIDATION.pairs for side in (p.chosen, p.rejected)]
    scores = load_reward_model(run / "artifact").score_members(answers)
    assert metrics["ensemble"]["reference"] == {"split": "validation", "pairs": 60, "n": 120}
    assert scores.mean(axis=1) == pytest.approx([0, 0, 0], abs=1e-5)
    assert scores.std(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert metrics["ensemble"]["variance"] == pytest.approx(scores.var(axis=0).mean(), abs=1e-5)


def test_without_validation_pairs_the_training_answers_are_the_scale(tmp_path):
    run = tmp_path / "run"
    prepare(run, "hashing", members=2)
    write_run(
        run,
        train=TRAIN.pairs,
        test=TEST.pairs,
        options=FAST["hashing"],
        members=2,
        validation_pairs=50,
    )
    told = train(run)["ensemble"]
    assert told["reference"] == {"split": "train", "pairs": 50, "n": 100}


def test_identical_members_have_no_variance():
    scores = np.tile(np.random.default_rng(0).normal(size=7), (4, 1))
    assert transforms.ensemble_variance(scores) == pytest.approx(np.zeros(7), abs=1e-30)
    for how in transforms.COMBINATIONS:
        assert transforms.combine(scores, how) == pytest.approx(scores[0])


def test_two_members_of_one_seed_are_one_model(tmp_path, monkeypatch):
    monkeypatch.setattr(
        TrainingConfig, "member", lambda config, _: config.model_copy(update={"members": 1})
    )
    run = prepare(tmp_path / "run", "hashing", members=2, prior_scale=1.0)
    told = train(run)["ensemble"]
    assert told["variance"] == 0
    assert told["disagree"] == 0
    assert told["correlation"] == pytest.approx(1)
    scores = load_reward_model(run / "artifact").score_members(CONVERSATIONS)
    assert transforms.ensemble_variance(scores).max() == 0


def test_combinations_are_those_of_the_paper():
    scores = np.array([[1.0, 4.0], [3.0, 4.0], [2.0, -2.0]])
    assert transforms.combine(scores, "mean").tolist() == [2, 2]
    assert transforms.combine(scores, "worst").tolist() == [1, -2]
    expected = [2 - 0.5 * 2 / 3, 2 - 0.5 * 8]  # variance with ddof 0
    assert transforms.combine(scores, "penalized").tolist() == pytest.approx(expected)
    assert transforms.combine(scores, "penalized", penalty=0).tolist() == [2, 2]
    with pytest.raises(ValueError, match="no combination 'best'"):
        transforms.combine(scores, "best")


def test_a_scoring_process_gives_every_member(three):
    run, metrics, _ = three
    asked = [[prompt, answer] for prompt, answer in CONVERSATIONS]
    request = {"folder": str(run / "artifact"), "asked": asked}
    members = score_here(request | {"method": "reward-members"})["scores"]
    table = np.array(members).reshape(3, len(asked))
    one = score_here(request | {"method": "reward-model"})["scores"]
    assert table.mean(axis=0) == pytest.approx(one, abs=1e-9)
    pairs = [[prompt, first, second] for (prompt, first), (_, second) in pairwise(asked)]
    margins = score_here({**request, "method": "pair-margins", "pairs": pairs})["scores"]
    unit = metrics["ensemble"]["unit"]
    assert margins == pytest.approx(-unit * np.diff(one), abs=1e-6)
    assert read_unit(run / "artifact") == pytest.approx(unit)
    assert read_unit(run / "artifact" / "member-1") == 1.0
    judge = RewardModelJudge(RewardModelOptions(), folder=run / "artifact", ask=score_here)
    assert judge.temperature == pytest.approx(1 / unit), "a judge's probability is of log-odds"


def test_an_ensemble_with_a_member_missing_is_refused(three, tmp_path):
    run, _, _ = three
    copy = tmp_path / "copy"
    shutil.copytree(run / "artifact", copy)
    shutil.rmtree(copy / "member-2")
    with pytest.raises(BadArtifact, match="member-2"):
        load_reward_model(copy)
    about = orjson.loads((copy / "touchstone.json").read_bytes())
    about["members"][0]["folder"] = "../run/artifact/member-1"
    (copy / "touchstone.json").write_bytes(orjson.dumps(about))
    with pytest.raises(BadArtifact, match="not folders in it"):
        load_reward_model(copy)
    about["members"][0]["scale"] = 0
    (copy / "touchstone.json").write_bytes(orjson.dumps(about))
    with pytest.raises(BadArtifact, match="does not say what its members are"):
        load_reward_model(copy)


# What is told -------------------------------------------------------------------------------------


def test_progress_goes_on_over_all_members(three):
    _, metrics, told = three
    steps = [one for one in told if one["event"] == "step"]
    assert [one["step"] for one in steps] == sorted({one["step"] for one in steps})
    assert {one["total_steps"] for one in steps} == {metrics["steps"]}
    assert steps[-1]["step"] == metrics["steps"]
    assert sorted({one["member"] for one in steps}) == [1, 2, 3]
    assert {one["members"] for one in steps} == {3}
    stages = [(one["stage"], one["state"]) for one in told if one["event"] == "stage"]
    begun = list(dict.fromkeys(stage for stage, state in stages if state == "running"))
    assert begun == ["load", "tokenize", "train", "evaluate", "save"]
    assert [stage for stage, state in stages if state == "done"] == begun
    evaluated = [one for one in told if one["event"] == "evaluate"]
    assert {one["member"] for one in evaluated} == {1, 2, 3}


def test_a_run_tells_its_members_in_its_file(tmp_path):
    run = prepare(tmp_path / "run", "hashing", members=2)
    emit = Events(None)
    assert work(run, emit=emit, stop=Stop()) == 0
    events = read_events(run)
    assert events[-1]["event"] == "done"
    assert events[-1]["ensemble"]["members"] == 2
    assert isinstance(MemberEvents(emit, 0, 2, is_first=True), Events)


def test_the_time_is_shared_between_members(tmp_path):
    run = prepare(tmp_path / "run", "hashing", members=2, time_limit=1e-6)
    metrics = train(run)
    assert metrics["ended"] == "time limit"
    assert [one["steps"] for one in metrics["ensemble"]["each"]] == [1, 1]
