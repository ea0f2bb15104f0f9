"""A build in a process of its own that kills itself on the way.

python -m tests.annotator.killed_build RUN read|verify|publish
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    run_id, stage = int(sys.argv[1]), sys.argv[2]
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotator.settings")
    django.setup()
    from annotator.exporters.files import JsonLines
    from annotator.jobs import exports as jobs
    from annotator.models import DatasetVersion
    from annotator.services import exports

    if stage == "read":  # rows are in the file, and there is no end of it
        write = JsonLines.write

        def write_and_die(self: JsonLines, rows: Any) -> None:
            write(self, rows)
            die()

        JsonLines.write = write_and_die  # type: ignore[method-assign]
    elif stage == "verify":
        exports._verify = die
    else:  # the folder has its last name, and the version no row yet
        DatasetVersion.objects.create = die  # type: ignore[method-assign]
    jobs.export(run_id=run_id)


if __name__ == "__main__":
    main()
