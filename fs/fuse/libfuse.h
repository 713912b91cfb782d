// libfuse's low-level API: the one place that chooses its version.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
