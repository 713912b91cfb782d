// `cumulus volume repair` and what else is a repair: says what was done and what could not be, and ends with
// 1 when anything is left to do. Runs in the command, the work is the daemon's.
#include <cstdio>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"

namespace cumulus {

Result<int> run_repair(const Invocation& invocation, const std::string& volume, bool restart) {
  Client client = invocation.client(volume);
  TRY(const Json report,
      client.call({{"request", "volume.repair"}, {"restart", restart}}, "repairing", false));
  const auto end = [&]() -> Result<int> {
    if (report.value("whole", false)) return 0;
    return fail(
        ErrorKind::unavailable,
        format("volume '{}' is not whole yet: {}", volume,
               report["problems"].empty() ? "run it again" : report["problems"][0].get<std::string>()));
  };
  if (invocation.json) {
    print_json(report);
    return end();
  }
  for (const Json& problem : report["problems"]) std::printf("%s\n", problem.get<std::string>().c_str());
  const auto count = [&](const char* key) { return report.value(key, std::uint64_t{0}); };
  if (count("resumed") > 0)
    std::printf("went on where an interrupted run had come to: %s segments were looked at by it\n",
                report["resumed"].dump().c_str());
  std::printf("%s segments: %s slices rebuilt, %s spread, %s segments beyond repair, %s not spread\n",
              report["segments"].dump().c_str(), report["rebuilt"].dump().c_str(),
              report["spread"].dump().c_str(), report["unrepairable"].dump().c_str(),
              report["unspread"].dump().c_str());
  return end();
}

}  // namespace cumulus
