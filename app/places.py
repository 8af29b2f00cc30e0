"""Where things are on disk: one folder of data sets, one of shipped models, and one for everything that jobs write."""

from pathlib import Path
from typing import NamedTuple

from app.errors import UnknownModelError

# What holds the packages `app` and `l2d`; in a repository also the shipped models.
SOURCE_TREE = Path(__file__).resolve().parent.parent
# What holds the three folders that nobody set. Among installed packages, what jobs write would go with the next installation.
HOME = SOURCE_TREE if (SOURCE_TREE / "pyproject.toml").is_file() else Path.cwd()


class Places(NamedTuple):
    """The three configured folders.

    Attributes:
        state: written by jobs and by nobody else.
        data: one folder per data set; read only.
        checkpoints: the shipped models; read only.
    """

    state: Path
    data: Path
    checkpoints: Path

    @property
    def jobs(self) -> Path:
        """One folder per job."""
        return self.state / "jobs"

    @property
    def models(self) -> Path:
        """What jobs put into the catalogue, one folder per model."""
        return self.state / "models"

    @property
    def findings(self) -> Path:
        """What was found in the data sets."""
        return self.state / "datasets"

    @property
    def cache(self) -> Path:
        """What can be made again at any time."""
        return self.state / "cache"

    def find_model(self, name: str) -> Path:
        """The checkpoint folder of a model; a shipped one goes before a job's.

        Raises:
            UnknownModelError: if there is none of that name.
        """
        for folder in (self.checkpoints, self.models):
            if (folder / name).is_dir():
                return folder / name
        raise UnknownModelError(f"The model {name!r} is no longer there: it was deleted after the job was ordered.")

    def as_environment(self) -> dict[str, str]:
        """What tells another process of this app where things are."""
        return {"L2D_STATE": str(self.state), "L2D_DATA": str(self.data), "L2D_CHECKPOINTS": str(self.checkpoints)}
