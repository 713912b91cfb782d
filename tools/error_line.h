// How both programs end: exit codes, and an error as one line on standard error. Any thread.
#pragma once

#include <string_view>

#include "objectstore/base/result.h"

namespace cumulus {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

// "PROGRAM: message", line breaks made spaces; without a program when the message begins with it. Returns
// kExitFailed.
int print_error(std::string_view program, const Error& error);

}  // namespace cumulus
