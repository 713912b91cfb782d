// cumulus volume ...
#include <cstdio>
#include <filesystem>
#include <set>
#include <sys/statvfs.h>
#include <unistd.h>

#include "netclient/miner_list.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/key_file.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/crypto/recovery_code.h"
#include "objectstore/superblock.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/new_volume_folder.h"
#include "tools/names.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kSegmentsToBegin = 4;  // the open one, two made ahead, one for what is noted of them
constexpr std::uint64_t kIndexToBegin = 4u << 20;
constexpr std::uint64_t kKeptFreeMax = 64u << 20;  // the log leaves that much of a disk, or a 16th

struct Arguments {
  std::string name;
  std::string miners;
  std::string code = "4+2";
  std::string segment = "8M";
  std::string durability = "local";
  std::string cache_size = "10G";
  std::string memory = "512M";
  std::string assignment;
  bool passphrase = false;
  bool data = false;
  bool steal = false;
  bool accept_loss = false;
  bool code_stdin = false;
  bool yes = false;
  bool restart = false;
};

Result<VolumeShape> parse_shape(const std::string& code, const std::string& segment) {
  VolumeShape shape;
  unsigned k = 0;
  unsigned m = 0;
  int used = 0;
  if (std::sscanf(code.c_str(), "%u+%u%n", &k, &m, &used) != 2 ||
      static_cast<std::size_t>(used) != code.size() || k > 255 || m > 255)
    return fail(ErrorKind::invalid, format("'{}' is not a code: give data+parity slices, as 4+2", code));
  TRY(const std::uint64_t size, parse_size(segment));
  shape.k = static_cast<std::uint8_t>(k);
  shape.m = static_cast<std::uint8_t>(m);
  shape.segment_log2 = 0;
  while (shape.segment_log2 < 63 && (std::uint64_t{1} << shape.segment_log2) < size) ++shape.segment_log2;
  if ((std::uint64_t{1} << shape.segment_log2) != size)
    return fail(ErrorKind::invalid, "segments are a power of two from 64K to 64M");
  TRY_OK(shape.validate());
  return shape;
}

Status fill_home(const Home& home, const std::string& name, const SecretKey& master,
                 const std::vector<MinerEntry>& miners, const VolumeSettings& settings,
                 const std::optional<std::string>& passphrase) {
  const std::string directory = home.volume(name);
  Bytes key = encode_key_file(master);
  if (passphrase) {
    SystemRandom random;
    TRY(key, encode_key_file(master, *passphrase, random));
  }
  TRY_OK(Home::write_file(directory + "/key", key));
  wipe(key);
  TRY_OK(Home::write_file(directory + "/miners.toml", view_of(print_miner_list(miners))));
  return home.save_settings(name, settings);
}

Result<std::optional<std::string>> new_passphrase(const Invocation& invocation, bool wanted) {
  if (invocation.passphrase_file.empty() && !wanted) return std::nullopt;
  TRY(auto first, read_passphrase(invocation.passphrase_file, "new passphrase: "));
  if (invocation.passphrase_file.empty()) {
    TRY(const auto second, read_passphrase("", "again: "));
    if (first != second) return fail(ErrorKind::invalid, "the passphrases differ");
  }
  if (first.empty()) return fail(ErrorKind::invalid, "the new passphrase is empty: it would protect nothing");
  if (!is_utf8(first))
    return fail(ErrorKind::invalid, "the new passphrase is not UTF-8: choose one that can be typed anywhere");
  return first;
}

Result<VolumeSettings> settings_of(const Arguments& arguments, const KeyTree& keys) {
  VolumeSettings settings;
  TRY_OK(settings.set("durability", arguments.durability));
  TRY_OK(settings.set("cache-size", arguments.cache_size));
  TRY_OK(settings.set("memory", arguments.memory));
  settings.volume_id = keys.volume_id().hex();
  return settings;
}

// Empty when no failure domain will ever have to hold more than m slices of a segment.
std::string domain_warning(const VolumeShape& shape, const std::vector<MinerEntry>& miners) {
  std::set<std::string> domains;
  for (const MinerEntry& miner : miners) domains.insert(miner.domain);
  const std::size_t needed = shape.miners_min();
  if (domains.size() >= needed) return "";
  return format(
      "the list has {} failure domains and {}+{} needs {}: the loss of one domain can take more than "
      "{} slices of a segment, and its data with them",
      domains.size(), shape.k, shape.m, needed, shape.m);
}

// With fewer miners than slices, the loss of one takes several slices of a segment.
unsigned miners_that_may_fail(const VolumeShape& shape, std::size_t miners) {
  const std::size_t slices = std::size_t{shape.k} + shape.m;
  return static_cast<unsigned>(shape.m / ((slices + miners - 1) / miners));
}

// Early and in plain words, rather than when the first write finds no place.
Status check_free_space(const std::string& folder, std::uint64_t segment) {
  struct statvfs disk{};
  if (::statvfs(folder.c_str(), &disk) != 0) return fail(from_errno(errno, "look at the disk of " + folder));
  const std::uint64_t free = std::uint64_t{disk.f_bavail} * disk.f_frsize;
  const std::uint64_t kept = std::min(kKeptFreeMax, std::uint64_t{disk.f_blocks} * disk.f_frsize / 16);
  const std::uint64_t wanted = kSegmentsToBegin * segment + std::max(kIndexToBegin, kept);
  if (free >= wanted) return {};
  return fail(ErrorKind::no_space,
              format("the disk of {} has {} free and a volume with segments of {} begins with {}: free some "
                     "space there, or choose another --home or smaller segments",
                     folder, format_size(free), format_size(segment), format_size(wanted)));
}

// A recovery code that nobody saw would make a volume that nobody can bring back.
Result<int> shown(NewVolumeFolder& folder) {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return fail(
        from_errno(errno, "show the recovery code, so the volume was not made: write standard output"));
  TRY_OK(folder.keep());
  return 0;
}

Result<int> create(const Invocation& invocation, const Arguments& arguments) {
  const Home home = invocation.home_folder();
  TRY_OK(check_volume_name(arguments.name));
  TRY(const VolumeShape shape, parse_shape(arguments.code, arguments.segment));
  TRY(const auto miners, load_miner_list(arguments.miners));
  if (miners.empty()) return fail(ErrorKind::invalid, arguments.miners + " lists no miners");
  if (std::ranges::none_of(miners, [](const MinerEntry& miner) { return miner.weight > 0; }))
    return fail(ErrorKind::invalid, arguments.miners + " lists no miner with a weight above 0");
  if (miners.size() < shape.miners_min())
    return fail(ErrorKind::invalid, format("{} needs at least {} miners, {} lists {}", arguments.code,
                                           shape.miners_min(), arguments.miners, miners.size()));
  SystemRandom random;
  SecretKey master;
  random.fill(master.view());
  const std::string code = encode_recovery_code(master);
  const KeyTree keys(master.clone());
  TRY(const VolumeSettings settings, settings_of(arguments, keys));
  TRY(const auto passphrase, new_passphrase(invocation, arguments.passphrase));

  TRY(NewVolumeFolder folder, NewVolumeFolder::make(home, arguments.name, "create"));
  TRY_OK(check_free_space(home.volume(arguments.name), std::uint64_t{1} << shape.segment_log2));
  TRY_OK(fill_home(home, arguments.name, master, miners, settings, passphrase));
  OpenRequest request;
  request.kind = OpenRequest::Kind::create;
  request.shape = shape;
  if (passphrase) {
    request.passphrase = *passphrase;
    request.has_passphrase = true;
  }
  Client client = invocation.client(arguments.name);
  TRY_OK(client.start(request, true, "creating"));
  client.makes_the_volume();
  TRY(const Json made, client.call({{"request", "fs.create"}, {"file_system", "main"}}, "", false));
  static_cast<void>(made);

  const QuorumShape quorum = QuorumShape::for_volume(static_cast<std::uint32_t>(miners.size()), shape.m);
  const std::string warning = domain_warning(shape, miners);
  if (!warning.empty()) std::fprintf(stderr, "cumulus: %s\n", warning.c_str());
  const unsigned may_fail = miners_that_may_fail(shape, miners.size());
  if (may_fail < shape.m)
    std::fprintf(stderr,
                 "cumulus: with %zu miners, one holds several slices of a segment: %u are needed for any "
                 "%u to fail at once ('cumulus miner add')\n",
                 miners.size(), 0u + shape.k + shape.m, shape.m);
  if (invocation.json) {
    print_json({{"name", arguments.name},
                {"id", settings.volume_id},
                {"recovery_code", code},
                {"code", arguments.code},
                {"miners_may_fail", may_fail},
                {"holders",
                 {{"count", quorum.holders},
                  {"quorum", quorum.quorum},
                  {"may_be_away", quorum.may_be_away()},
                  {"may_lie", quorum.may_lie()}}}});
    return shown(folder);
  }
  std::printf("volume %s is made: %u data and %u parity slices on %zu miners\n", arguments.name.c_str(),
              shape.k, shape.m, miners.size());
  std::printf(
      "any %u miners may fail at once; %u of its %u holders may be away and %u may lie about what is "
      "newest\n\n",
      may_fail, quorum.may_be_away(), quorum.holders, quorum.may_lie());
  std::printf(
      "Recovery code, shown this once. Write it down: it alone brings the data back, and whoever has it can "
      "read it.\n\n    %s\n",
      code.c_str());
  return shown(folder);
}

Result<int> recover(const Invocation& invocation, const Arguments& arguments) {
  const Home home = invocation.home_folder();
  TRY_OK(check_volume_name(arguments.name));
  TRY(const auto miners, load_miner_list(arguments.miners));
  std::string code;
  if (arguments.code_stdin) {
    char line[512];
    if (std::fgets(line, sizeof line, stdin) == nullptr)
      return fail(ErrorKind::invalid, "no recovery code on standard input");
    code = line;
  } else {
    TRY(code, read_passphrase("", "recovery code: "));
  }
  TRY(SecretKey master, decode_recovery_code(code));
  const KeyTree keys(master.clone());
  TRY(const VolumeSettings settings, settings_of(arguments, keys));
  TRY(const auto passphrase, new_passphrase(invocation, arguments.passphrase));
  TRY(NewVolumeFolder folder, NewVolumeFolder::make(home, arguments.name, "recover"));
  TRY_OK(fill_home(home, arguments.name, master, miners, settings, passphrase));
  OpenRequest request;
  request.kind = OpenRequest::Kind::recover;
  request.steal = arguments.steal;
  request.accept_loss = arguments.accept_loss;
  if (passphrase) {
    request.passphrase = *passphrase;
    request.has_passphrase = true;
  }
  Client client = invocation.client(arguments.name);
  TRY_OK(client.start(request, true, "recovering segments"));
  TRY_OK(folder.keep());
  const auto asked = client.call({{"request", "volume.status"}}, "status", false);
  if (!asked)
    return fail(asked.error().kind(),
                format("volume '{0}' is recovered and can be used; 'cumulus volume status "
                       "{0}' shows up to where, which failed now: {1}",
                       arguments.name, asked.error().message()));
  const Json& status = *asked;
  if (invocation.json) {
    print_json(status);
  } else {
    std::printf("volume %s is recovered up to position %s of its log\n", arguments.name.c_str(),
                status["positions"]["recovered"].dump().c_str());
  }
  return 0;
}

std::string size_of(const Json& json, const char* key) {
  return format_size(json.value(key, std::uint64_t{0}));
}

void print_status(const Json& status) {
  const auto text = [&](const char* key) { return status.value(key, ""); };
  std::printf("volume      %s (%s)\n", text("name").c_str(), text("id").c_str());
  std::printf("state       %s\n", status.value("writable", false)
                                      ? "open for writing"
                                      : ("read-only: " + text("read_only_reason")).c_str());
  std::printf("code        %s, segments of %s, epoch %s\n", text("code").c_str(),
              size_of(status, "segment").c_str(), status["epoch"].dump().c_str());
  std::printf("capacity    %s, free %s\n", size_of(status, "capacity").c_str(),
              size_of(status, "free").c_str());
  const bool disks = status.value("disks_uncounted", false);
  std::printf("used        %s on the miners, %s %s of it garbage%s\n", size_of(status, "used").c_str(),
              disks ? "at most" : "about", size_of(status, "garbage").c_str(),
              disks ? " (what disks hold is not told apart)" : "");
  std::printf("dirty       %s not yet on the miners\n", size_of(status, "dirty").c_str());
  if (const std::string waiting_for = text("waiting_for"); !waiting_for.empty())
    std::printf("waiting     %s\n", waiting_for.c_str());
  std::printf("segments    %s stored, %s crowded, %s degraded\n", status["segments"].dump().c_str(),
              status["segments_crowded"].dump().c_str(), status["segments_degraded"].dump().c_str());
  std::printf("local cache %s\n", size_of(status, "cache").c_str());
  for (const Json& user : status["users"])
    std::printf("in use      %s %s\n", user.value("kind", "").c_str(), user.value("where", "").c_str());
  for (const Json& miner : status["miners"]) {
    const std::string what =
        miner.value("answers", false)
            ? format("{} of {} used{}", size_of(miner, "used"), size_of(miner, "capacity"),
                     miner.value("draining", false) ? ", draining" : "")
            : "does not answer: " + miner.value("error", "");
    std::printf("miner       %s %s %s\n", miner.value("identity", "").substr(0, 8).c_str(),
                miner.value("address", "").c_str(), what.c_str());
  }
}

Result<int> simple(const Invocation& invocation, const std::string& volume, const Json& request,
                   const std::string& what) {
  Client client = invocation.client(volume);
  TRY(const Json result, client.call(request, what, what == "sending"));
  if (invocation.json) print_json(result);
  return 0;
}

Result<int> check(const Invocation& invocation, const Arguments& arguments) {
  Client client = invocation.client(arguments.name);
  TRY(const Json report,
      client.call({{"request", "volume.check"}, {"data", arguments.data}}, "checking", false));
  if (invocation.json) print_json(report);
  const bool clean = report.value("clean", false);
  if (!invocation.json) {
    for (const Json& problem : report["problems"]) std::printf("%s\n", problem.get<std::string>().c_str());
    std::printf("%s: %s rows, %s segments, %s slices, %s missing, %s wrong\n", clean ? "clean" : "NOT clean",
                report["rows"].dump().c_str(), report["segments"].dump().c_str(),
                report["slices"].dump().c_str(), report["slices_missing"].dump().c_str(),
                report["slices_wrong"].dump().c_str());
  }
  if (clean) return 0;
  const Json& problems = report["problems"];
  const std::string first =
      problems.empty()
          ? format("{} slices are missing and {} wrong, which 'cumulus volume repair {}' mends",
                   report["slices_missing"].dump(), report["slices_wrong"].dump(), arguments.name)
          : problems[0].get<std::string>();
  return fail(ErrorKind::corrupt, format("volume '{}' is not clean: {}", arguments.name, first));
}

Result<int> destroy(const Invocation& invocation, const Arguments& arguments) {
  const Home home = invocation.home_folder();
  TRY_OK(home.check_volume(arguments.name));
  if (!arguments.yes) {
    if (::isatty(STDIN_FILENO) != 1)
      return fail(ErrorKind::invalid,
                  "destroying a volume cannot be undone: say --yes when nobody can be asked");
    std::printf("This deletes everything in volume '%s', for good. Type its name to go on: ",
                arguments.name.c_str());
    std::fflush(stdout);
    char line[256] = "";
    if (std::fgets(line, sizeof line, stdin) == nullptr || std::string(line) != arguments.name + "\n")
      return fail(ErrorKind::denied, "not destroyed");
  }
  Client client = invocation.client(arguments.name);
  TRY(const Json result, client.destroy());
  if (invocation.json) print_json(result);
  for (const Json& silent : result["unanswered"])
    std::fprintf(stderr, "cumulus: not told: %s\n", silent.get<std::string>().c_str());
  const std::string folder = home.volume(arguments.name);
  if (!result["unanswered"].empty())
    return fail(
        ErrorKind::unavailable,
        format("volume '{0}' is destroyed, but {1} of its miners still hold slices: run 'cumulus volume "
               "destroy {0}' again when they answer, or delete {2}, which keeps the key for that, when "
               "they never will",
               arguments.name, result["unanswered"].size(), folder));
  TRY_OK(client.stop());  // it has ended when its lock is free
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) return fail(from_errno(error.value(), "remove " + folder));
  return 0;
}

// What is removed vanishes from view at once; its space stays taken for now.
Result<int> collect_garbage(const Invocation& invocation, const Arguments& arguments) {
  TRY_OK(invocation.home_folder().check_volume(arguments.name));
  return fail(ErrorKind::unsupported,
              format("garbage collection of volume '{0}' comes with a later version: nothing was changed; "
                     "'cumulus volume status {0}' shows how much garbage there is",
                     arguments.name));
}

Result<int> list(const Invocation& invocation) {
  const Home home = invocation.home_folder();
  Json all = Json::array();
  TRY(const std::vector<std::string> names, home.volumes());
  for (const std::string& name : names) {
    const auto settings = home.load_settings(name);
    const bool running = DaemonSocket::connect(home.volume(name)).has_value();
    const auto begun = Home::is_there(NewVolumeFolder::mark_of(home.volume(name)));
    const bool unfinished = begun && *begun;
    all.push_back({{"name", name},
                   {"id", settings ? settings->volume_id : ""},
                   {"open", running},
                   {"unfinished", unfinished}});
    if (!invocation.json)
      std::printf("%-24s %s %s\n", name.c_str(),
                  settings ? settings->volume_id.substr(0, 16).c_str() : settings.error().message().c_str(),
                  unfinished ? "unfinished" : (running ? "open" : ""));
  }
  if (invocation.json) print_json(all);
  return 0;
}

Result<int> set(const Invocation& invocation, const Arguments& arguments) {
  const Home home = invocation.home_folder();
  TRY_OK(home.check_volume(arguments.name));
  const auto equals = arguments.assignment.find('=');
  if (equals == std::string::npos) return fail(ErrorKind::invalid, "give KEY=VALUE, as durability=network");
  std::uint64_t before = 0;
  const auto edit = [&](VolumeSettings& settings) -> Status {
    before = settings.options.memory_bytes;
    return settings.set(arguments.assignment.substr(0, equals), arguments.assignment.substr(equals + 1));
  };
  TRY(const VolumeSettings settings, home.change_settings(arguments.name, edit));
  if (DaemonSocket::connect(home.volume(arguments.name))) {
    Client client = invocation.client(arguments.name);
    TRY(const Json ignored, client.call({{"request", "volume.set"}}, "setting", false));
    static_cast<void>(ignored);
    if (before != settings.options.memory_bytes)
      std::fprintf(
          stderr,
          "cumulus: the volume's daemon runs and keeps the memory it has: the new size holds from its "
          "next start ('cumulus volume stop %s' ends it)\n",
          arguments.name.c_str());
  }
  if (invocation.json) print_json(settings.to_json());
  return 0;
}

Result<int> change_passphrase(const Invocation& invocation, const Arguments& arguments,
                              const std::string& new_file, bool remove) {
  const Home home = invocation.home_folder();
  TRY_OK(home.check_volume(arguments.name));
  const std::string path = home.volume(arguments.name) + "/key";
  TRY(const Bytes bytes, Home::read_file(path, kKeyFileSizeMax));
  TRY(const bool wrapped, key_file_is_wrapped(bytes));
  std::optional<std::string> old;
  if (wrapped) {
    TRY(old, read_passphrase(invocation.passphrase_file, "old passphrase: "));
  }
  TRY(const SecretKey master, decode_key_file(bytes, old));
  Bytes key = encode_key_file(master);
  if (!remove) {
    Invocation other = invocation;
    other.passphrase_file = new_file;
    TRY(const auto passphrase, new_passphrase(other, true));
    SystemRandom random;
    TRY(key, encode_key_file(master, *passphrase, random));
  }
  TRY_OK(Home::write_file(path, key));
  return 0;
}

}  // namespace

void add_volume_commands(CLI::App& app, Invocation& invocation) {
  auto* volume = app.add_subcommand("volume", "make, look after and recover volumes")
                     ->require_subcommand(1)
                     ->fallthrough();
  volume->footer("Example: cumulus volume status photos");
  static Arguments arguments;
  static std::string new_passphrase_file;
  static bool remove_passphrase = false;
  const auto named = [&](const char* name, const char* help, const char* example) {
    auto* command = volume->add_subcommand(name, help);
    command->add_option("NAME", arguments.name, "the volume")->required()->type_name("");
    command->footer(std::string("Example: cumulus volume ") + example);
    return command;
  };
  const auto request = [&](const char* name, const char* help, const char* what) {
    auto* command = named(name, help, (std::string(name) + " photos").c_str());
    const std::string text = std::string("volume.") + name;
    const std::string doing = what;
    invocation.on(command, [&invocation, text, doing] {
      return simple(invocation, arguments.name, {{"request", text}}, doing);
    });
  };

  const auto local_sizes = [](CLI::App* command) {
    command->add_option("--cache-size", arguments.cache_size, "local disk for the log and the cache")
        ->capture_default_str()
        ->type_name("SIZE");
    command
        ->add_option("--memory", arguments.memory,
                     "what the volume's daemon may take; segments of 8M need 240M")
        ->capture_default_str()
        ->type_name("SIZE");
  };

  auto* make = named("create", "make a volume; prints its recovery code once",
                     "create photos --miners devnet/miners.toml");
  make->add_option("--miners", arguments.miners, "the list of miners")->required()->type_name("FILE");
  make->add_option("--code", arguments.code, "data+parity slices")->capture_default_str()->type_name("K+M");
  make->add_option("--segment", arguments.segment, "segment size")->capture_default_str()->type_name("SIZE");
  make->add_option("--durability", arguments.durability, "what flush waits for: local or network")
      ->capture_default_str();
  local_sizes(make);
  make->add_flag("--passphrase", arguments.passphrase, "ask for a passphrase that protects the key file");
  invocation.on(make, [&] { return create(invocation, arguments); });

  auto* back = named("recover", "bring a volume back from its recovery code and the miners",
                     "recover photos --miners miners.toml --code-stdin < code.txt");
  back->add_option("--miners", arguments.miners, "the list of miners")->required()->type_name("FILE");
  back->add_flag("--code-stdin", arguments.code_stdin, "read the recovery code from standard input");
  back->add_flag("--steal", arguments.steal, "take it over although another home did not close it");
  back->add_flag("--accept-loss", arguments.accept_loss,
                 "go on with what can be read when some of the log is gone");
  local_sizes(back);
  back->add_flag("--passphrase", arguments.passphrase, "ask for a passphrase that protects the key file");
  invocation.on(back, [&] { return recover(invocation, arguments); });

  auto* ls = volume->add_subcommand("ls", "the volumes of this home");
  ls->footer("Example: cumulus volume ls --json");
  invocation.on(ls, [&] { return list(invocation); });

  auto* status =
      named("status", "capacity, use, what is not yet on the miners, the miners", "status photos --json");
  invocation.on(status, [&]() -> Result<int> {
    Client client = invocation.client(arguments.name);
    TRY(const Json result, client.call({{"request", "volume.status"}}, "status", false));
    if (invocation.json) {
      print_json(result);
    } else {
      print_status(result);
    }
    return 0;
  });
  request("sync", "return when everything is on the miners", "sending");
  request("drop-cache", "forget what the local cache holds and the miners have", "dropping");

  auto* checking = named("check", "verify the index, with --data every slice too", "check photos --data");
  checking->add_flag("--data", arguments.data, "read and verify every slice on every miner");
  invocation.on(checking, [&] { return check(invocation, arguments); });
  auto* mending =
      named("repair", "rebuild missing and wrong slices, spread crowded segments", "repair photos");
  mending->add_flag("--restart", arguments.restart, "look at everything again, not only at what is left");
  invocation.on(mending, [&] { return run_repair(invocation, arguments.name, arguments.restart); });
  auto* collect = named("gc", "give the space of removed data back (with a later version)", "gc photos");
  invocation.on(collect, [&] { return collect_garbage(invocation, arguments); });
  auto* end = named("destroy", "delete a volume everywhere, for good", "destroy photos --yes");
  end->add_flag("--yes", arguments.yes, "do not ask");
  invocation.on(end, [&] { return destroy(invocation, arguments); });
  auto* setting = named("set", "change a setting: durability, cache-size, memory, outage-wait",
                        "set photos durability=network");
  setting->add_option("KEY=VALUE", arguments.assignment)->required()->type_name("");
  invocation.on(setting, [&] { return set(invocation, arguments); });
  auto* passwd = named("passwd", "set, change or remove the key file's passphrase", "passwd photos");
  passwd->add_option("--new-passphrase-file", new_passphrase_file, "first line is the new passphrase")
      ->type_name("FILE");
  passwd->add_flag("--remove", remove_passphrase, "store the key without a passphrase");
  invocation.on(passwd, [&] {
    return change_passphrase(invocation, arguments, new_passphrase_file, remove_passphrase);
  });
  auto* open = named("open", "start the volume's daemon now", "open photos --steal");
  open->add_flag("--steal", arguments.steal, "take it over although another home did not close it");
  invocation.on(open, [&]() -> Result<int> {
    TRY_OK(invocation.home_folder().check_volume(arguments.name));
    OpenRequest opening;
    opening.steal = arguments.steal;
    Client client = invocation.client(arguments.name);
    TRY_OK(client.start(opening, false, "opening"));
    return 0;
  });
  auto* stop = named("stop", "end the volume's daemon; it says what is not on the miners yet", "stop photos");
  invocation.on(stop, [&]() -> Result<int> {
    TRY_OK(invocation.home_folder().check_volume(arguments.name));
    Client client = invocation.client(arguments.name);
    TRY(const Client::Stopped stopped, client.stop());
    if (invocation.json) print_json({{"stopped", stopped.ran}, {"dirty", stopped.dirty}});
    if (stopped.dirty != 0)
      std::fprintf(
          stderr,
          "cumulus: %s are not on the miners yet: they are safe on this machine's disk and are sent when "
          "'%s' is opened here again; until then another home needs --steal, and loses them\n",
          format_size(stopped.dirty).c_str(), arguments.name.c_str());
    return 0;
  });
}

}  // namespace cumulus
