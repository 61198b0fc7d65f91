"""train.py, whose second process meets a bad file in its second step.

Authors
 * The iusp_plugin authors 2026
"""

import os
import runpy
import sys
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "DCASE2019_Task5"


def fail(brain, batch, should_step):
    """What a file that was damaged meanwhile would raise."""
    if os.environ["RANK"] == "1" and brain.step == 2:
        raise ValueError("street.wav cannot be read as audio: damaged.")


if __name__ == "__main__":
    sys.path.insert(0, str(RECIPE))
    import processes

    processes.ParallelBrain.on_fit_batch_start = fail
    runpy.run_path(str(RECIPE / "train.py"), run_name="__main__")
