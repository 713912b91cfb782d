// How both programs talk and end: standard streams, exit codes, and an error as one line on standard error.
// Any thread.
#pragma once

#include <string_view>

#include "objectstore/base/result.h"

namespace cumulus {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

// First of all in main(): the number of a stream that was closed is taken. Else the next file that is opened
// has it, and what is meant for people is written into that file.
void keep_standard_streams();

// "PROGRAM: message", line breaks made spaces; without a program when the message begins with it. Returns
// kExitFailed.
int print_error(std::string_view program, const Error& error);

}  // namespace cumulus
