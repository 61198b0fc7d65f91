"""What each network of a study costs to run.

Authors
 * The iusp_plugin authors 2026
"""

import platform
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hyperpyyaml import load_hyperpyyaml
from iusp_plugin.models.macs import count_macs, count_parameters
from iusp_plugin.models.memory import peak_activation_bytes
from iusp_plugin.run_folder import versions

HERE = Path(__file__).resolve().parent


def measure_costs(study, names, n_times=20):
    """Parameters, MACs, activation memory and latency of some networks.

    Latency is the median time of one clip on one thread of this machine's
    CPU, float32, from waveform to logits, front end included.

    Arguments
    ---------
    study : Study
        Declares the options of the networks.
    names : sequence of str
        Students, or "cnn_teacher".
    n_times : int
        How often a clip is timed.

    Returns
    -------
    dict
        The figures by network, and where they were measured.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = {name: _costs(study, name, n_times) for name in names}
    finally:
        torch.set_num_threads(threads)
    machine = {"cpu": cpu_name(), "threads": 1, "versions": versions()}
    return {"machine": machine, "networks": figures}


def _costs(study, name, n_times):
    """One network's figures."""
    if name == "cnn_teacher":
        yaml = "teacher.yaml"
        options = study.teacher_run(study.teachers[0]).options
    else:
        yaml = "student.yaml"
        run = study.student_run("plain", name, 0, {})
        options = run.options
    with (
        TemporaryDirectory() as folder,
        open(HERE / "hparams" / yaml, encoding="utf-8") as stream,
    ):
        options = {**options, "output_folder": folder}
        # Options of the host, such as eval_precision, are no keys of a YAML.
        hparams = load_hyperpyyaml(stream, options, overrides_must_match=False)
    model, front_end = hparams["model"].eval(), hparams["front_end"]
    n_samples = int(hparams["clip_duration_s"] * front_end.sample_rate)
    n_frames = n_samples // front_end.hop_length
    wavs = torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0))
    times = []
    with torch.no_grad():
        for _ in range(n_times + 3):
            start = time.perf_counter()
            model(front_end.log_mel(wavs))
            times.append(time.perf_counter() - start)
    return {
        "params": count_parameters(model),
        "macs": count_macs(model, n_frames, front_end.n_mels),
        "peak_activation_bytes": peak_activation_bytes(
            model, n_frames, front_end.n_mels
        ),
        "latency_ms": 1000 * statistics.median(times[3:]),
    }


def cpu_name():
    """The processor's name as Linux tells it, else its kind."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
