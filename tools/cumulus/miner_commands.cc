// cumulus miner ...
#include <cstdio>

#include "netclient/miner_list.h"
#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

std::string volume;
std::string file;
std::string identity;
bool lost = false;
constexpr int kRacesMax = 10;

Result<std::vector<MinerEntry>> listed(const Invocation& invocation) {
  const Home home = invocation.home_folder();
  TRY_OK(home.check_volume(volume));
  auto miners = load_miner_list(home.volume(volume) + "/miners.toml");
  if (!miners) return fail(ErrorKind::corrupt, miners.error().message());
  return miners;
}

// Changes the list as the volume has it now; again when another command was faster.
Result<int> change(const Invocation& invocation,
                   const std::function<Status(std::vector<MinerEntry>& miners)>& edit) {
  Client client = invocation.client(volume);
  for (int attempt = 1;; ++attempt) {
    TRY(const Json known, client.call({{"request", "miner.list"}}, "", false));
    const std::string before = known.value("miners", "");
    TRY(auto miners, parse_miner_list(before, "the volume's list"));
    TRY_OK(edit(miners));
    const auto result = client.call({{"request", "miner.set"},
                                     {"miners", print_miner_list(miners)},
                                     {"expected", before},
                                     {"lost", lost}},
                                    "telling the holders", false);
    if (!result && result.error().kind() == ErrorKind::exists && attempt < kRacesMax) continue;
    if (!result) return fail(result.error());
    if (invocation.json) print_json(*result);
    return 0;
  }
}

Result<int> list(const Invocation& invocation) {
  TRY(const auto miners, listed(invocation));
  Json all = Json::array();
  for (const MinerEntry& miner : miners) {
    all.push_back({{"identity", miner.id.hex()},
                   {"address", miner.address},
                   {"domain", miner.domain},
                   {"capacity", miner.capacity},
                   {"weight", miner.weight}});
    if (!invocation.json)
      std::printf("%s  %-24s %-12s %s\n", miner.id.brief().c_str(), miner.address.c_str(),
                  miner.domain.c_str(), format_size(miner.capacity).c_str());
  }
  if (invocation.json) print_json(all);
  return 0;
}

Result<int> add(const Invocation& invocation) {
  TRY(const auto more, load_miner_list(file));
  return change(invocation, [&](std::vector<MinerEntry>& miners) -> Status {
    for (const MinerEntry& miner : more) {
      const auto known = std::find_if(miners.begin(), miners.end(),
                                      [&](const MinerEntry& entry) { return entry.id == miner.id; });
      if (known == miners.end()) {
        miners.push_back(miner);
      } else {
        *known = miner;  // a new address or domain of a miner that is known
      }
    }
    return {};
  });
}

// Which of them the command names.
Result<std::size_t> one_named(const std::vector<MinerEntry>& miners) {
  const auto matches = [](const MinerEntry& entry) {
    return entry.id.hex().starts_with(identity) || entry.address == identity;
  };
  const auto found = std::count_if(miners.begin(), miners.end(), matches);
  if (found == 0)
    return fail(ErrorKind::not_found,
                format("no miner of volume '{}' is '{}': give an identity's beginning or an address", volume,
                       identity));
  if (found > 1)
    return fail(ErrorKind::invalid,
                format("'{}' fits {} miners: give more of the identity", identity, found));
  return static_cast<std::size_t>(std::find_if(miners.begin(), miners.end(), matches) - miners.begin());
}

Result<int> remove(const Invocation& invocation) {
  auto done = change(invocation, [](std::vector<MinerEntry>& miners) -> Status {
    TRY(const std::size_t at, one_named(miners));
    miners.erase(miners.begin() + static_cast<std::ptrdiff_t>(at));
    return {};
  });
  if (!done && done.error().kind() == ErrorKind::denied)
    return fail(ErrorKind::denied,
                format("{}: 'cumulus miner drain {} {}' moves them to others first; if it is lost for good, "
                       "say --lost, and 'cumulus volume repair {}' afterwards",
                       done.error().message(), volume, identity, volume));
  return done;
}

// What the draining miners hold, and with an identity what that miner holds, moves to the others.
Result<int> drain(const Invocation& invocation) {
  if (!identity.empty()) {
    Invocation quiet = invocation;
    quiet.json = false;
    TRY(const int told, change(quiet, [](std::vector<MinerEntry>& miners) -> Status {
          TRY(const std::size_t at, one_named(miners));
          miners[at].weight = 0;  // placement passes it by from now on
          return {};
        }));
    static_cast<void>(told);
  }
  return run_repair(invocation, volume, true);
}

Result<int> status(const Invocation& invocation) {
  Client client = invocation.client(volume);
  TRY(const Json result, client.call({{"request", "volume.status"}}, "status", false));
  if (invocation.json) {
    print_json(result["miners"]);
    return 0;
  }
  for (const Json& miner : result["miners"]) {
    const bool answers = miner.value("answers", false);
    std::printf("%s  %-24s %s\n", miner.value("identity", "").substr(0, 8).c_str(),
                miner.value("address", "").c_str(),
                answers ? format("{} of {} used, {} slices of this volume{}{}",
                                 format_size(miner.value("used", std::uint64_t{0})),
                                 format_size(miner.value("capacity", std::uint64_t{0})),
                                 miner.value("volume_slices", std::uint64_t{0}),
                                 miner.value("draining", false) ? ", draining" : "",
                                 miner.value("read_only", false) ? ", its disk refuses writes" : "")
                              .c_str()
                        : ("does not answer: " + miner.value("error", "")).c_str());
  }
  return 0;
}

}  // namespace

void add_miner_commands(CLI::App& app, Invocation& invocation) {
  auto* miner = app.add_subcommand("miner", "a volume's miners")->require_subcommand(1)->fallthrough();
  miner->footer("Example: cumulus miner ls photos");
  const auto command = [&](const char* name, const char* help, const char* example,
                           const std::function<Result<int>()>& body) {
    auto* made = miner->add_subcommand(name, help)->fallthrough();
    made->add_option("VOLUME", volume, "the volume")->required()->type_name("");
    made->footer(std::string("Example: cumulus miner ") + example);
    invocation.on(made, body);
    return made;
  };
  command("ls", "the miners on the volume's list", "ls photos", [&invocation] { return list(invocation); });
  command("status", "ask each miner", "status photos", [&invocation] { return status(invocation); });
  command("add", "add the miners of a list, or change their addresses", "add photos more.toml",
          [&invocation] { return add(invocation); })
      ->add_option("FILE", file, "a miners.toml")
      ->required()
      ->type_name("");
  command("drain", "move everything off the miners that drain, or off the one that is named",
          "drain photos 1f2e3d4c", [&invocation] { return drain(invocation); })
      ->add_option("MINER", identity, "the beginning of its identity, or its address")
      ->type_name("");
  auto* off = command("remove", "take a miner off the list, once it was drained", "remove photos 1f2e3d4c",
                      [&invocation] { return remove(invocation); });
  off->add_option("MINER", identity, "the beginning of its identity, or its address")
      ->required()
      ->type_name("");
  off->add_flag("--lost", lost, "it will not come back: repair rebuilds what it held");
}

}  // namespace cumulus
