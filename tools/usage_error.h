// A command line that does not parse, as one line: which command, what is wrong with it, where its help is.
// The two programs' main() only; any thread.
#pragma once

#include <CLI/CLI.hpp>

#include "objectstore/base/result.h"

namespace cumulus {

// invalid. `app` has just thrown `error` from parse(); not for --help and --version, which are no errors.
Error usage_error(const CLI::App& app, const CLI::ParseError& error);

}  // namespace cumulus
