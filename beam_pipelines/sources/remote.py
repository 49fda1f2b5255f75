"""Places that Beam's file systems serve: `gs://` and whatever else is installed."""

import contextlib
import importlib.util
from collections.abc import Iterator

from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from support.errors import UserError, input_error, usage_error
from support.images import BadImage, require_local

#: Scheme -> the module that Beam needs for it, and what installs that.
_EXTRAS = {
    "gs": ("", "-e '.[gcp]'"),  # known to Beam only if it can be used
    "s3": ("boto3", "'apache-beam[aws]'"),
    "azfs": ("azure", "'apache-beam[azure]'"),
    "hdfs": ("hdfs", "'apache-beam[hadoop]'"),
}
_PATTERN_LETTERS = "*?["


def require_served(path: str, flag: str) -> None:
    """Checks a flag's value: a local path, or one of a scheme that Beam serves here.

    Raises:
      UserError: exit 2, saying what installs the scheme.
    """
    scheme = FileSystems.get_scheme(path)
    if scheme is None:
        require_local(path, flag)
        return
    module, package = _EXTRAS.get(scheme, ("", ""))
    known = {system.scheme() for system in FileSystem.get_all_subclasses()}
    if scheme not in known or (module and not importlib.util.find_spec(module)):
        raise usage_error(
            f"--{flag}={path}: {scheme}:// is not available here.",
            f"Run: pip install {package}"
            if package
            else "Copy or mount the data first.",
        )
    if any(letter in path for letter in _PATTERN_LETTERS):
        raise usage_error(
            f"--{flag}={path}: Beam takes {' '.join(_PATTERN_LETTERS)} for patterns.",
            "Give a folder whose path has none of these letters.",
        )


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, such as `gs://`."""
    return FileSystems.get_scheme(path) is not None


def match(pattern: str, limit: int | None = None) -> list[FileMetadata]:
    """Files whose paths match; `*` stands for names in a folder, `**` at any depth."""
    with read_errors(pattern):
        return FileSystems.match([pattern], [limit])[0].metadata_list


@contextlib.contextmanager
def read_errors(path: str) -> Iterator[None]:
    """Turns whatever a file system raises into an error that can be acted on.

    Raises:
      UserError: exit 3.
    """
    try:
        yield
    except (BadImage, UserError):
        raise
    except Exception as error:
        what = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        raise input_error(
            f"{path} cannot be read: {what or type(error).__name__}.",
            "Check the path, the permissions and the disk or network; then run it "
            "again.",
        ) from error
