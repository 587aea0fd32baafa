"""Start images go away with their jobs: when a job is over, its file is removed within seconds.

One rule for every way in which a job can end, also while no API runs, and for files whose job was
never submitted. Any number of processes may do this in one directory.
"""

from anyio import to_thread

from service.background import repeat
from worker.contract.image_files import ImageFiles
from worker.contract.records import Records

_INTERVAL_S = 2.0
_SUBMIT_S = 60.0  # longer than a submit takes, which writes the record after the file


async def remove_when_over(files: ImageFiles, records: Records) -> None:
    """Remove what no job needs any more, until canceled."""
    await repeat(
        lambda: to_thread.run_sync(sweep, files, records), _INTERVAL_S, "start_images_not_swept"
    )


def sweep(files: ImageFiles, records: Records) -> None:
    found = files.start_files()
    is_over = records.are_over([file.job_id for file in found])
    for file in found:
        if is_over.get(file.job_id, file.age_s > _SUBMIT_S):
            file.path.unlink(missing_ok=True)
