"""The callback of transformers' Trainer: schedules by step, over a resume too, and what it logs."""

import pytest
import torch

import softdraw
from softdraw.integrations.transformers import DrawCallback
from softdraw.schedules import linear

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers", reason="pip install transformers")
pytest.importorskip("accelerate", reason="pip install accelerate, which the Trainer needs")


class Net(torch.nn.Module):
    """It keeps the tau of each training pass, and every code that it chose."""

    def __init__(self):
        super().__init__()
        self.book = softdraw.nn.Codebook(4, 6, 4, groups=2, rule=softdraw.ReinMax(tau=9.0))
        self.router = softdraw.nn.Router(4, 5, 2, law="plackett-luce")
        self.taus, self.chosen = [], []

    def forward(self, x):
        codes = self.book(x)
        self.router(x)
        if self.training:
            self.taus.append(self.book.tau.item())
            self.chosen.append(codes.index)
        return {"loss": codes.value.square().sum()}


def trainer(folder, callbacks, steps, net=None, **settings):
    torch.manual_seed(0)
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=steps,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="steps",
        **{"logging_steps": 2, "save_steps": 4} | settings,
    )
    data = [{"x": x} for x in torch.randn(8, 4)]
    return transformers.Trainer(Net() if net is None else net, args, train_dataset=data, callbacks=callbacks)


def test_tau_follows_the_step_and_survives_a_resume(tmp_path):
    schedule = linear(1.0, 0.5, 10)
    first = trainer(tmp_path, [DrawCallback(schedule)], steps=4)
    first.train()
    assert first.model.taus == pytest.approx([1 - 0.05 * step for step in range(4)])
    resumed = trainer(tmp_path, [DrawCallback(schedule)], steps=8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.model.taus == pytest.approx([1 - 0.05 * step for step in range(4, 8)])
    assert resumed.model.book.tau.item() == pytest.approx(0.6)


def test_micro_batches_share_a_value(tmp_path):
    run = trainer(tmp_path, [DrawCallback({"tau": linear(1.0, 0.5, 10)})], steps=2, gradient_accumulation_steps=2)
    run.train()
    assert run.model.taus == pytest.approx([1, 1, 0.95, 0.95])


def test_the_log_has_tau_and_the_usage_since_the_last_log(tmp_path):
    run = trainer(tmp_path, [DrawCallback(linear(1.0, 0.5, 10))], steps=4)
    run.train()
    logs = [log for log in run.state.log_history if "loss" in log]
    assert [log["tau"] for log in logs] == pytest.approx([0.95, 0.85])
    for log, chosen in zip(logs, (run.model.chosen[:2], run.model.chosen[2:]), strict=True):
        index = torch.cat(chosen)
        shares = torch.nn.functional.one_hot(index, 6).double().mean(0)
        perplexity = torch.exp(-torch.xlogy(shares, shares).sum(-1)).mean().item()
        assert log["book/perplexity"] == pytest.approx(perplexity)
        assert log["book/active_codes"] == (shares > 0).sum()
        assert 2 <= log["router/active_codes"] <= 5
    assert "book/tau" not in logs[0]
    assert not any(module._forward_hooks for module in run.model.modules())


def test_without_schedules_it_logs_the_tau_of_each_module(tmp_path):
    run = trainer(tmp_path, [DrawCallback(usage=False)], steps=2)
    run.train()
    log = next(log for log in run.state.log_history if "loss" in log)
    assert log["book/tau"] == 9.0
    assert not [name for name in log if "perplexity" in name or "router" in name]


def test_put_first_reaches_a_reporter(tmp_path):
    class Reporter(transformers.TrainerCallback):
        seen = ()

        def on_log(self, args, state, control, logs=None, **others):
            self.seen = (*self.seen, dict(logs))

    reporter, callback = Reporter(), DrawCallback(linear(1.0, 0.5, 10))
    run = trainer(tmp_path, [reporter, callback], steps=2)
    callback.put_first(run)
    run.train()
    assert reporter.seen[0]["tau"] == pytest.approx(0.95)
    assert run.callback_handler.callbacks.count(callback) == 1


def test_transformers_own_quantiser_takes_a_schedule_of_its_temperature(tmp_path):
    class Old(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.temperature, self.seen = torch.nn.Linear(4, 3), 2, []

        def forward(self, x):
            self.seen.append(self.temperature)
            return {"loss": self.layer(x).sum()}

    run = trainer(tmp_path, [DrawCallback({"temperature": linear(2.0, 0.5, 3)})], steps=3, net=Old())
    run.train()
    assert run.model.seen == pytest.approx([2.0, 1.5, 1.0])


def test_what_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"schedules must be a schedule of tau, .*got .*0.5"):
        DrawCallback(0.5)
    with pytest.raises(TypeError, match="usage must be a bool"):
        DrawCallback(usage=1)
    with pytest.raises(ValueError, match="no module with an attribute 'heat'"):
        trainer(tmp_path, [DrawCallback({"heat": linear(1.0, 0.5, 10)})], steps=2).train()
