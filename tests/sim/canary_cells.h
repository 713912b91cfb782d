// The canary of cells that nobody verifies. The linker puts this in front of AeadKey::open_cells for the
// simulator alone
// (--wrap), so that the product has no such switch.
#pragma once

namespace cumulus {

// From now on cells that do not verify are passed on as if they did.
void believe_any_cell();

}  // namespace cumulus
