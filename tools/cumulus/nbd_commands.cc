// cumulus nbd ...: disks for NBD clients.
#include <cstdio>
#include <filesystem>

#include "netclient/address.h"
#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/frame.h"

namespace cumulus {
namespace {

struct ServeFlags {
  std::string target;
  std::string socket;
  std::string listen;
  std::string certificates;
  std::string psk;
  std::vector<std::string> allow;
  bool read_only = false;
  bool reconnect_safe = false;
  bool replace = false;
  bool steal = false;
  bool foreground = false;
};
ServeFlags flags;
std::string target;

std::string absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

// VOLUME or VOLUME/IMAGE.
Result<std::pair<std::string, std::string>> volume_and_image(const std::string& text) {
  const auto slash = text.find('/');
  const std::string volume = text.substr(0, slash);
  TRY_OK(check_volume_name(volume));
  return std::pair(volume, slash == std::string::npos ? std::string() : text.substr(slash + 1));
}

// Where to listen, by number: a name is looked up here, where waiting for name servers holds nobody else up.
Result<std::string> numeric_listen(const std::string& text) {
  const auto colon = text.rfind(':');
  const std::string host = text.substr(0, colon);
  if (colon == std::string::npos || host.empty() || host.front() == '[' || numeric_endpoint({host, 0}))
    return text;
  TRY(const Endpoints found, resolve({host, 0}));
  const auto address = found.front().address();
  const std::string by_number = address.is_v6() ? "[" + address.to_string() + "]" : address.to_string();
  return by_number + text.substr(colon);
}

// As it stands in a URI: names and paths may have any bytes.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-._~/").find(c) != std::string_view::npos;
    if (plain) {
      result += c;
    } else {
      result += format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

std::string uri_of(const Json& server) {
  const bool tls = server.value("tls", false);
  const std::string address = server.value("address", "");
  const std::string image = escaped(server.value("image", ""));
  if (address.starts_with("/"))
    return format("{}+unix:///{}?socket={}", tls ? "nbds" : "nbd", image, escaped(address));
  return format("{}://{}/{}", tls ? "nbds" : "nbd", address, image);
}

Result<int> serve(const Invocation& invocation) {
  TRY(const auto parts, volume_and_image(flags.target));
  Client client = invocation.client(parts.first);
  TRY_OK(invocation.home_folder().check_volume(parts.first));
  if (const auto at = parts.second.rfind('@'); at != std::string::npos)
    return fail(ErrorKind::invalid,
                format("serve '{}/{}': its snapshots are exports beside it, this one is '{}'", parts.first,
                       parts.second.substr(0, at), parts.second));
  TRY(const std::string listen, numeric_listen(flags.listen));
  OpenRequest open;
  open.steal = flags.steal;
  TRY_OK(client.start(open, false, "opening"));
  TRY(const Json server, client.call({{"request", "nbd.serve"},
                                      {"image", parts.second},
                                      {"socket", absolute(flags.socket)},
                                      {"listen", listen},
                                      {"tls_certificates", absolute(flags.certificates)},
                                      {"tls_psk", absolute(flags.psk)},
                                      {"allow", flags.allow},
                                      {"read_only", flags.read_only},
                                      {"reconnect_safe", flags.reconnect_safe},
                                      {"replace", flags.replace}},
                                     "", false));
  if (invocation.json) {
    Json shown = server;
    shown["uri"] = uri_of(server);
    print_json(shown);
  } else {
    std::printf("%s\n", uri_of(server).c_str());
  }
  std::fflush(stdout);
  if (!flags.foreground) return 0;
  TRY(const Json ended, client.call({{"request", "nbd.wait"},
                                     {"number", server.value("number", std::uint64_t{0})},
                                     {"address", server.value("address", "")}},
                                    "", false));
  // No failure: a supervisor that started it again would take it back.
  if (const std::string other = ended.value("replaced_by", ""); !other.empty())
    std::fprintf(stderr, "the server of %s was replaced by one on %s\n", flags.target.c_str(), other.c_str());
  return 0;
}

// Asks only daemons that run: an idle volume serves nothing.
Result<int> list(const Invocation& invocation) {
  Json all = Json::array();
  const Home home = invocation.home_folder();
  if (!target.empty()) TRY_OK(home.check_volume(target));
  TRY(const std::vector<std::string> volumes, home.volumes());
  for (const std::string& volume : volumes) {
    if ((!target.empty() && volume != target) || !DaemonSocket::connect(home.volume(volume))) continue;
    Client client = invocation.client(volume);
    TRY(const Json residents, client.call({{"request", "resident.ls"}}, "", false));
    for (const Json& one : residents)
      if (one.value("kind", "") == "nbd") all.push_back(one);
  }
  for (Json& one : all) one["uri"] = uri_of(one);
  if (invocation.json) {
    print_json(all);
    return 0;
  }
  for (const Json& one : all) {
    const std::string image = one.value("image", "");
    std::printf("%s%s%s  %s  %zu clients%s\n", one.value("volume", "").c_str(), image.empty() ? "" : "/",
                image.c_str(), one["uri"].get<std::string>().c_str(), one["clients"].size(),
                one.value("read_only", false) ? "  read-only" : "");
  }
  return 0;
}

Result<int> stop(const Invocation& invocation) {
  TRY(const auto parts, volume_and_image(target));
  Client client = invocation.client(parts.first);
  TRY(const Json done, client.call({{"request", "nbd.stop"}, {"image", parts.second}}, "", false));
  static_cast<void>(done);
  return 0;
}

}  // namespace

void add_nbd_commands(CLI::App& app, Invocation& invocation) {
  auto* nbd = app.add_subcommand("nbd", "disks for virtual machines and other NBD clients")
                  ->require_subcommand(1)
                  ->fallthrough();
  nbd->footer("Example: cumulus nbd serve photos/disk --socket /run/disk.sock");
  auto* start = nbd->add_subcommand("serve", "serve an image, or all images of a volume");
  start->add_option("VOLUME[/IMAGE]", flags.target)->required()->type_name("");
  start->add_option("--socket", flags.socket, "a unix socket")->type_name("PATH");
  start->add_option("--listen", flags.listen, "a TCP address")->type_name("ADDR:PORT");
  start->add_flag("--read-only", flags.read_only, "refuse all changes");
  start->add_flag("--reconnect-safe", flags.reconnect_safe,
                  "answer a write when it survives kill -9 of the server: for clients that reconnect");
  start
      ->add_option(
          "--tls-certificates", flags.certificates,
          "ca-cert.pem, server-cert.pem, server-key.pem; clients need a certificate of that authority")
      ->type_name("DIR");
  start->add_option("--tls-psk", flags.psk, "lines of user:hex-key")->type_name("FILE");
  start->add_option("--allow", flags.allow, "only clients from there; may be given again")->type_name("CIDR");
  start->add_flag("--replace", flags.replace, "end the server that has the image or the address now");
  start->add_flag("--steal", flags.steal, "take the volume over from another machine");
  start->add_flag("--foreground", flags.foreground, "stay until the server ends; ends it when interrupted");
  start->footer("Example: cumulus nbd serve photos/disk --socket /run/disk.sock");
  invocation.on(start, [&invocation] { return serve(invocation); });
  auto* ls = nbd->add_subcommand("ls", "the servers that run");
  ls->add_option("VOLUME", target)->type_name("");
  ls->footer("Example: cumulus nbd ls");
  invocation.on(ls, [&invocation] { return list(invocation); });
  auto* end = nbd->add_subcommand("stop", "end the servers of a volume, or of one image");
  end->add_option("VOLUME[/IMAGE]", target)->required()->type_name("");
  end->footer("Example: cumulus nbd stop photos/disk");
  invocation.on(end, [&invocation] { return stop(invocation); });
}

}  // namespace cumulus
