"""What `zipfile` leaves to its callers: kinds of damage, names in old encodings."""

import struct
import zipfile
import zlib

#: What `zipfile` raises for a damaged or unsupported file or member. Of a member that
#: is encrypted or of another method it raises RuntimeErrors, too.
DAMAGED = (
    zipfile.BadZipFile,
    NotImplementedError,
    struct.error,
    zlib.error,
    ValueError,
    EOFError,
)

_UTF8 = 0x800  # flag of a member


def path_of(member: zipfile.ZipInfo, errors: str = "replace") -> str:
    """The path of a member with slashes: old programs write UTF-8 without saying so.

    Args:
      member: of a zip file.
      errors: as in `bytes.decode`, for a path in neither ASCII nor UTF-8.
    """
    path = member.filename
    if not (member.flag_bits & _UTF8 or path.isascii()):
        # `zipfile` took the bytes for cp437, or the name from an extra field.
        path = member.orig_filename.encode("cp437").decode(errors=errors)
    return path.replace("\\", "/")
