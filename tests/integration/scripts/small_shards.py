"""cache_teacher.py with two clips a shard, so that tiny data have several.

Authors
 * The iusp_plugin authors 2026
"""

import functools
import runpy
import sys
from pathlib import Path

import iusp_plugin.teacher_cache as module

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "DCASE2019_Task5"

if __name__ == "__main__":
    module.ShardWriter = functools.partial(module.ShardWriter, shard_clips=2)
    sys.path.insert(0, str(RECIPE))
    runpy.run_path(str(RECIPE / "cache_teacher.py"), run_name="__main__")
