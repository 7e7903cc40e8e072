"""The doctor's judgements, on machines that are made up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.presets import EMBEDDED_MODEL
from engine.runs import filesystem
from engine.runs.devices import Gpu
from engine.runs.session import Survival
from stonk_tui import doctor
from stonk_tui.doctor import gpus, machine, model
from stonk_tui.doctor.findings import GIB, Finding
from stonk_tui.doctor.gpus import DriverView, TorchView

CPU_TORCH = TorchView(version="2.13.0+cpu")
HOPPER = {"name": "NVIDIA H100", "capability": [9, 0], "memory": 80 * GIB}
CUDA_TORCH = TorchView(
    version="2.13.0",
    cuda="13.0",
    devices=[HOPPER],
    architectures=["sm_75", "sm_80", "sm_90", "compute_90"],
)


def gpu(index: int = 0, **changes: Any) -> Gpu:
    fields: dict[str, Any] = {
        "index": index,
        "name": "NVIDIA H100",
        "memory_total": 80 * GIB,
        "memory_used": 0,
        "utilisation": 0,
        "power_watts": 70.0,
        "temperature_celsius": 40,
        "process_ids": (),
    }
    return Gpu(**fields | changes)


def driver(*seen: Gpu, cuda: tuple[int, int] = (13, 0)) -> DriverView:
    return DriverView(version="580.65", cuda=cuda, gpus=list(seen))


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


# --- devices


def test_machine_without_gpu_is_a_note() -> None:
    finding = only(gpus.judge_gpus(DriverView(), CPU_TORCH, None))
    assert (finding.level, finding.fix) == ("note", None)


def test_gpu_that_works_is_ok() -> None:
    finding = only(gpus.judge_gpus(driver(gpu()), CUDA_TORCH, None))
    assert (finding.name, finding.level) == ("cuda:0", "ok")
    assert "80.0 GiB, sm_90, bf16" in finding.message


@pytest.mark.parametrize(
    ("cuda", "tag"), [((12, 2), "+cu126"), ((12, 8), "+cu126"), ((13, 1), "+cu130")]
)
def test_cpu_build_beside_a_driver_is_an_error_with_the_pip_command(
    cuda: tuple[int, int], tag: str
) -> None:
    finding = only(gpus.judge_gpus(driver(gpu(), cuda=cuda), CPU_TORCH, None))
    assert finding.level == "error"
    assert "CPU-only build" in finding.message
    assert finding.fix is not None
    assert f"pip install torch==2.13.0{tag} " in finding.fix


def test_wheel_newer_than_the_driver_is_an_error_with_the_pip_command() -> None:
    torch = TorchView(version="2.13.0", cuda="13.0", error="The NVIDIA driver is too old")
    finding = only(gpus.judge_gpus(driver(gpu(), cuda=(12, 4)), torch, None))
    assert finding.level == "error"
    assert "built for CUDA 13.0, newer than the driver" in finding.message
    assert finding.fix is not None
    assert "update the driver, or:" in finding.fix
    assert "torch==2.13.0+cu126" in finding.fix


def test_driver_older_than_any_wheel_has_to_be_updated() -> None:
    assert "update the NVIDIA driver" in gpus.torch_install_command("2.13.0", (11, 8))


def test_hidden_gpu_names_the_variable() -> None:
    torch = TorchView(version="2.13.0", cuda="13.0")
    finding = only(gpus.judge_gpus(driver(gpu()), torch, ""))
    assert finding.level == "warning"
    assert "CUDA_VISIBLE_DEVICES" in finding.message


def test_driver_that_does_not_answer_is_an_error() -> None:
    view = DriverView(error="Driver/library version mismatch")
    finding = only(gpus.judge_gpus(view, CPU_TORCH, None))
    assert finding.level == "error"
    assert finding.fix is not None
    assert "reboot" in finding.fix


def test_busy_and_missing_devices_are_notes() -> None:
    busy = gpu(1, process_ids=(4242,), memory_used=8 * GIB)
    findings = gpus.judge_gpus(driver(gpu(), busy), CUDA_TORCH, "0")
    messages = [finding.message for finding in findings]
    assert "torch sees 1 of the driver's 2 GPUs (CUDA_VISIBLE_DEVICES=0)" in messages
    assert "in use by process 4242: 8.0 GiB of 80.0 GiB taken" in messages


def test_pascal_is_told_which_torch_it_needs() -> None:
    pascal = {"name": "GTX 1080 Ti", "capability": [6, 1], "memory": 11 * GIB}
    torch = TorchView("2.13.0", "13.0", [pascal], ["sm_75", "sm_80", "sm_90", "compute_90"])
    finding = only(gpus.judge_gpus(driver(gpu()), torch, None))
    assert finding.level == "error"
    assert finding.fix is not None
    assert "torch 2.14 or older" in finding.fix
    assert "cu126" in finding.fix


@pytest.mark.parametrize(
    ("capability", "level", "words"),
    [
        ([6, 1], "note", "no bf16, and fp16 is slow"),
        ([7, 5], "note", "no native bf16"),
        ([8, 0], "ok", "bf16"),
    ],
)
def test_number_formats_follow_the_capability(
    capability: list[int], level: str, words: str
) -> None:
    device = {"name": "GPU", "capability": capability, "memory": GIB}
    torch = TorchView("2.13.0", "12.6", [device], ["sm_61", "sm_75", "sm_80"])
    finding = only(gpus.judge_gpus(driver(gpu()), torch, None))
    assert finding.level == level
    assert words in finding.message


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ["sm_80"], True),  # a binary runs on a later minor version
        ((8, 0), ["sm_86"], False),  # and not on an earlier one
        ((9, 0), ["sm_80"], False),  # nor on another major version
        ((9, 0), ["compute_80"], True),  # PTX is compiled for newer devices
        ((7, 5), ["compute_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_90a"], False),
        ((12, 0), ["sm_120"], True),
        ((9, 0), ["gfx942"], False),
    ],
)
def test_kernels_run_where_cuda_says_so(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert gpus.runs_on(capability, architectures) is runs


# --- model


QWEN_1_5B = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "intermediate_size": 8960,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 49_152,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("config", "model_id"),
    [(QWEN_1_5B, "Qwen/Qwen2.5-1.5B-Instruct"), (SMOLLM2_135M, EMBEDDED_MODEL)],
)
def test_parameters_of_a_config_equal_the_published_count(
    config: dict[str, Any], model_id: str
) -> None:
    assert model.parameters_of_config(config) == model.KNOWN_PARAMETERS[model_id]


def test_parameters_of_a_local_folder_are_read_from_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2_135M))
    assert model.parameter_count(str(tmp_path)) == 134_515_008


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "mamba"}'])
def test_unreadable_or_foreign_config_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert model.parameter_count(str(tmp_path)) is None
    finding = model.judge_memory("x/y", None, 8 * GIB, CPU_TORCH)
    assert finding.level == "note"
    assert "unknown" in finding.message


@pytest.mark.parametrize(
    ("memory_gib", "level", "words"),
    [(24, "ok", "in 16 bits"), (10, "note", "in 4 bits"), (4, "error", "even in 4 bits")],
)
def test_model_is_judged_against_the_gpu(memory_gib: int, level: str, words: str) -> None:
    # 7.6 B parameters: 14.2 GiB in 16 bits and 4.3 in 4 bits, and 2.5 to work in.
    torch = TorchView("2.13.0", "13.0", [HOPPER | {"memory": memory_gib * GIB}])
    finding = model.judge_memory("q", 7_615_616_512, 64 * GIB, torch)
    assert finding.level == level
    assert words in finding.message


def test_model_is_judged_against_free_memory_on_the_cpu() -> None:
    assert model.judge_memory("m", 134_515_008, 8 * GIB, CPU_TORCH).level == "ok"
    assert model.judge_memory("m", 134_515_008, 2 * GIB, CPU_TORCH).level == "warning"


def test_disk_levels(tmp_path: Path) -> None:
    gib = GIB
    assert model.judge_disk("disk", tmp_path, 5 * gib, gib).level == "ok"
    assert model.judge_disk("disk", tmp_path, gib // 2, gib).level == "error"
    assert model.judge_disk("disk", tmp_path, gib, None).level == "note"
    assert model.judge_disk("disk", tmp_path, gib, 0).level == "ok"
    assert model.judge_disk("disk", tmp_path, None, gib).level == "warning"


def test_home_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.judge_home(tmp_path / "new").level == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = model.judge_home(tmp_path / "new")
    assert found.level == "error"
    assert found.fix is not None
    assert "STONK_HOME" in found.fix


# --- store


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 1), False),
        ((3, 50, 4), False),
        ((3, 50, 7), True),
        ((3, 51, 0), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
    ],
)
def test_wal_reset_bug_is_known_by_version(version: tuple[int, ...], fixed: bool) -> None:
    assert machine.wal_reset_fixed(version) is fixed
    assert machine.judge_sqlite(version).level == ("ok" if fixed else "note")


MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 8:2 / /home/ann/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/two\040words rw - fuse.sshfs host:/ rw
33 22 0:42 / /data rw - ext4 /dev/sdc1 rw
34 22 0:43 / /data rw - cifs //server/data rw
a line that is no mount
"""


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/srv/x", "ext4", "ok"),
        ("/home/ann/runs", "nfs4", "error"),
        ("/home/ann/local/runs", "xfs", "ok"),
        ("/homestead", "ext4", "ok"),
        ("/mnt/two words/runs", "fuse.sshfs", "error"),
        ("/data/runs", "cifs", "error"),  # the later mount hides the earlier
    ],
)
def test_file_system_of_home_is_the_deepest_mount(path: str, kind: str, level: str) -> None:
    found = filesystem.mount_type(Path(path), MOUNTS)
    assert found == kind
    assert machine.judge_filesystem(Path(path), found).level == level


def test_unknown_file_system_is_a_note(tmp_path: Path) -> None:
    assert filesystem.mount_type(tmp_path, "") is None
    assert machine.judge_filesystem(tmp_path, None).level == "note"


# --- libraries, hub, session, terminal


def test_missing_library_is_an_error() -> None:
    finding = only(machine.judge_libraries({"peft": None, "torch": "2.13.0"}, CPU_TORCH))
    assert finding.level == "error"
    assert "peft" in finding.message


def test_old_libraries_with_known_holes_are_told() -> None:
    findings = machine.judge_libraries({"transformers": "5.2.0", "torch": "2.9.1"}, CPU_TORCH)
    assert [finding.level for finding in findings] == ["error", "warning"]
    assert "CVE-2026-4372" in findings[0].message


def test_torch_that_does_not_load_is_an_error() -> None:
    versions = {"transformers": "5.23.0", "torch": "2.13.0+cpu"}
    broken = TorchView(error="libcudart.so.13: cannot open shared object file")
    finding = only(machine.judge_libraries(versions, broken))
    assert "libcudart" in finding.message


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("5.23.0.dev0", (5, 23, 0)), (None, ()), ("main", ())],
)
def test_version_tuple(text: str | None, numbers: tuple[int, ...]) -> None:
    assert gpus.version_tuple(text) == numbers


def test_hub_matters_only_where_the_model_comes_from_it() -> None:
    assert machine.judge_hub(None, needed=True).level == "ok"
    assert machine.judge_hub("no route", needed=False).level == "note"
    assert machine.judge_hub("no route", needed=True).level == "warning"


def test_model_that_was_fetched_before_needs_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model.needs_hub("Qwen/Qwen2.5-1.5B-Instruct")
    snapshot = tmp_path / "models--Qwen--Qwen2.5-1.5B-Instruct" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert not model.needs_hub("Qwen/Qwen2.5-1.5B-Instruct")
    assert not model.needs_hub(EMBEDDED_MODEL)


def test_hub_is_not_asked_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert machine.probe_hub() == "HF_HUB_OFFLINE is set"


def test_hub_that_refuses_the_connection_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "refused" in (machine.probe_hub() or "")


@pytest.mark.parametrize(
    ("environment", "size", "is_tty", "level"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, (120, 40), True, "ok"),
        ({"TERM": "xterm-256color"}, (120, 40), True, "note"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, (60, 20), True, "note"),
        ({"TERM": "dumb"}, (120, 40), True, "warning"),
        ({}, (0, 0), False, "note"),
    ],
)
def test_terminal_levels(
    environment: dict[str, str], size: tuple[int, int], is_tty: bool, level: str
) -> None:
    assert machine.judge_terminal(environment, size, is_tty).level == level


def test_what_becomes_of_runs_at_logout_is_a_finding() -> None:
    found = machine.judge_session(Survival("warning", "runs end", "loginctl enable-linger"))
    assert (found.level, found.fix) == ("warning", "loginctl enable-linger")


# --- the report


def test_report_is_safe_json_and_aligned_text() -> None:
    report = doctor.DoctorReport(
        model="evil\x1b]52;c;x\x07",
        home="/h",
        versions={"python": "3.11.7", "torch": None},
        torch=CPU_TORCH,
        driver=driver(gpu()),
        findings=[Finding("gpu", "ok", "fine"), Finding("disk", "error", "full", "make room")],
    )
    data = json.loads(report.to_json())
    assert data["schema"] == 1
    assert data["level"] == "error"
    assert data["findings"][1] == {
        "name": "disk",
        "level": "error",
        "message": "full",
        "fix": "make room",
    }
    text = doctor.render(report)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert "  torch   not installed" in lines
    assert "  ✓ ok       gpu   fine" in lines
    assert "  ✗ error    disk  full" in lines
    assert "                   fix: make room" in lines
    assert lines[-1] == "1 error"


def test_collect_on_this_machine_never_imports_torch_or_prints_a_token(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom stonk_tui import doctor\n"
        f"report = doctor.collect('smollm2-135m', Path({str(tmp_path)!r}))\n"
        "print(report.to_json())\nprint(doctor.render(report))\nassert 'torch' not in sys.modules"
    )
    root = str(Path(__file__).resolve().parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": root,
            "HF_TOKEN": "hf_very_secret",
            "HF_HUB_OFFLINE": "1",
        },
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "very_secret" not in result.stdout + result.stderr
    report, _ = json.JSONDecoder().raw_decode(result.stdout)
    names = {finding["name"] for finding in report["findings"]}
    assert {"python", "memory", "disk (runs)", "file system", "sqlite", "hub token"} <= names
    assert report["versions"]["torch"]


@pytest.mark.gpu
def test_real_gpu_is_found() -> None:
    torch = gpus.probe_torch()
    assert torch.error is None
    assert torch.devices
    levels = [f.level for f in gpus.judge_gpus(gpus.probe_driver(), torch, None)]
    assert "error" not in levels
    assert shutil.which("nvidia-smi")
