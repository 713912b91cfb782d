#include "objectstore/base/result.h"

#include <cerrno>
#include <cstring>

namespace cumulus {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::not_found:
      return "not_found";
    case ErrorKind::exists:
      return "exists";
    case ErrorKind::no_space:
      return "no_space";
    case ErrorKind::unavailable:
      return "unavailable";
    case ErrorKind::corrupt:
      return "corrupt";
    case ErrorKind::fenced:
      return "fenced";
    case ErrorKind::invalid:
      return "invalid";
    case ErrorKind::denied:
      return "denied";
    case ErrorKind::unsupported:
      return "unsupported";
    case ErrorKind::closed:
      return "closed";
    case ErrorKind::io:
      return "io";
  }
  return "unknown";
}

Error from_errno(int errno_value, std::string_view what) {
  ErrorKind kind = ErrorKind::io;
  if (errno_value == ENOENT) kind = ErrorKind::not_found;
  if (errno_value == EEXIST) kind = ErrorKind::exists;
  if (errno_value == ENOSPC || errno_value == EDQUOT) kind = ErrorKind::no_space;
  if (errno_value == EACCES || errno_value == EPERM || errno_value == EROFS) kind = ErrorKind::denied;
  char text[128];
  const char* reason = strerror_r(errno_value, text, sizeof text);
  return {kind, std::string(what) + ": " + reason};
}

}  // namespace cumulus
