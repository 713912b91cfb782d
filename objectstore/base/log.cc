// The only include of spdlog.
#include "objectstore/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace cumulus {
namespace {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made =
        std::make_shared<spdlog::logger>("cumulus", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
    made->set_level(spdlog::level::info);
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warn:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void log_to_file(const char* path) {
  auto& sinks = logger().sinks();
  if (path == nullptr || *path == '\0') {
    sinks = {std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  } else {
    sinks = {std::make_shared<spdlog::sinks::basic_file_sink_mt>(path)};
  }
  logger().set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
}

void log_level_min(LogLevel level) { logger().set_level(level_of(level)); }

void log_line(LogLevel level, std::string_view line) { logger().log(level_of(level), line); }

}  // namespace cumulus
