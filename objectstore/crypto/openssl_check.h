// What the .cc files of this room share to turn an OpenSSL or ipsec-mb failure that cannot happen into a
// stop.
#pragma once

#include "objectstore/base/check.h"

// The library says 1 for success; anything else means wrong arguments or no memory, never bad input.
#define CRYPTO_OK(call) CHECK((call) == 1)
