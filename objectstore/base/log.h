// Diagnostics for operators. Never logs plaintext, names of files, keys or codes. Any thread.
#pragma once

#include <string_view>
#include <utility>

#include "objectstore/base/format.h"

namespace cumulus {

enum class LogLevel { debug, info, warn, error };

// Where lines go: standard error until set. The file is appended to; an empty path means standard error.
void log_to_file(const char* path);
void log_level_min(LogLevel level);
void log_line(LogLevel level, std::string_view line);

template <class... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  log_line(LogLevel::debug, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  log_line(LogLevel::info, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> text, Args&&... args) {
  log_line(LogLevel::warn, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  log_line(LogLevel::error, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace cumulus
