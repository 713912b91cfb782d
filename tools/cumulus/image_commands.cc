// cumulus image ...: disk images made, resized, removed, brought in and taken out.
#include <cstdio>
#include <filesystem>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/image_copy.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

struct Arguments {
  std::string target;
  std::string size;
  std::string file;
  std::string format;
  bool shrink = false;
  bool background = false;
};
Arguments arguments;

Result<int> ask(const Invocation& invocation, const std::string& volume, const Json& request) {
  Client client = invocation.client(volume);
  TRY(const Json answer, client.call(request, "", false));
  if (invocation.json) print_json(answer);
  return 0;
}

Result<int> create(const Invocation& invocation) {
  TRY(const auto parts, split_target(arguments.target));
  TRY(const std::uint64_t size, parse_size(arguments.size));
  return ask(invocation, parts.first, {{"request", "image.create"}, {"image", parts.second}, {"size", size}});
}

Result<int> resize(const Invocation& invocation) {
  TRY(const auto parts, split_target(arguments.target));
  TRY(const std::uint64_t size, parse_size(arguments.size));
  return ask(
      invocation, parts.first,
      {{"request", "image.resize"}, {"image", parts.second}, {"size", size}, {"shrink", arguments.shrink}});
}

Result<int> remove(const Invocation& invocation) {
  TRY(const auto parts, split_target(arguments.target));
  return ask(invocation, parts.first, {{"request", "image.rm"}, {"image", parts.second}});
}

Result<int> flatten(const Invocation& invocation) {
  TRY(const auto parts, split_target(arguments.target));
  Client client = invocation.client(parts.first);
  const Json request = {
      {"request", "image.flatten"}, {"image", parts.second}, {"background", arguments.background}};
  TRY(const Json answer, client.call(request, "flattening", true));
  if (invocation.json) print_json(answer);
  return 0;
}

Result<int> list(const Invocation& invocation) {
  Client client = invocation.client(arguments.target);
  TRY(const Json images, client.call({{"request", "image.ls"}}, "", false));
  if (invocation.json) {
    print_json(images);
    return 0;
  }
  for (const Json& image : images) {
    std::printf("%10s  %s", format_size(image.value("size", std::uint64_t{0})).c_str(),
                image.value("name", "").c_str());
    if (image.contains("importing"))
      std::printf("  import interrupted or under way at %s",
                  format_size(image["importing"].get<std::uint64_t>()).c_str());
    if (image.contains("receiving"))
      std::printf("  import of '%s' into it interrupted or under way",
                  image["receiving"].get<std::string>().c_str());
    if (const std::string parent = image.value("parent", ""); !parent.empty())
      std::printf("  clone of %s", parent.c_str());
    if (image.contains("flattened"))
      std::printf(", flattened up to %s", format_size(image["flattened"].get<std::uint64_t>()).c_str());
    if (image.contains("attached"))
      std::printf("  attached: %s", image["attached"].get<std::string>().c_str());
    if (image.contains("error")) std::printf("  %s", image["error"].get<std::string>().c_str());
    std::printf("\n");
  }
  return 0;
}

Result<ImageCopy> copy_of(const Invocation& invocation, const std::string& volume, const std::string& name) {
  ImageCopy copy{invocation.home_folder(), volume, name, "", arguments.file, arguments.format};
  if (const auto at = name.rfind('@'); at != std::string::npos) {
    copy.image = name.substr(0, at);
    copy.snapshot = name.substr(at + 1);
  }
  return copy;
}

Result<int> bring_in(const Invocation& invocation) {
  TRY(const auto parts, split_target(arguments.target));
  TRY(const ImageCopy copy, copy_of(invocation, parts.first, parts.second));
  if (!copy.snapshot.empty())
    return fail(ErrorKind::invalid, "a snapshot never changes: import into an image of a new name");
  Client client = invocation.client(parts.first);
  TRY(const std::uint64_t size, import_image(client, copy));
  if (invocation.json) print_json({{"size", size}});
  return 0;
}

Result<int> take_out(const Invocation& invocation) {
  TRY(const auto parts, split_target(arguments.target));
  TRY(const ImageCopy copy, copy_of(invocation, parts.first, parts.second));
  Client client = invocation.client(parts.first);
  TRY(const std::uint64_t size, export_image(client, copy));
  if (invocation.json) print_json({{"size", size}});
  return 0;
}

}  // namespace

void add_image_commands(CLI::App& app, Invocation& invocation) {
  auto* image = app.add_subcommand("image", "disk images")->require_subcommand(1)->fallthrough();
  image->footer("Example: cumulus image create photos/disk --size 20G");
  using Body = Result<int> (*)(const Invocation&);
  const auto add = [&](const char* name, const char* help, const char* what, Body body, const char* example) {
    auto* command = image->add_subcommand(name, help)->fallthrough();
    command->add_option(what, arguments.target)->required()->type_name("");
    command->footer(std::string("Example: cumulus image ") + example);
    invocation.on(command, [&invocation, body] { return body(invocation); });
    return command;
  };
  add("create", "make a thin disk", "VOLUME/IMAGE", create, "create photos/disk --size 20G")
      ->add_option("--size", arguments.size, "4K, 10M, 1G, 2T")
      ->required()
      ->type_name("SIZE");
  add("ls", "the images of a volume", "VOLUME", list, "ls photos");
  add("rm", "remove an image", "VOLUME/IMAGE", remove, "rm photos/disk");
  auto* size =
      add("resize", "give a disk another size", "VOLUME/IMAGE", resize, "resize photos/disk --size 40G");
  size->add_option("--size", arguments.size, "the new size")->required()->type_name("SIZE");
  size->add_flag("--shrink", arguments.shrink, "cut off its end: what is there is lost");
  add("flatten", "make a clone stand on its own, so that its parents can be removed", "VOLUME/IMAGE", flatten,
      "flatten photos/disk")
      ->add_flag("--background", arguments.background,
                 "return at once; without it, it goes on too when the command is interrupted");
  auto* in = add("import", "make an image from a file of any format; run again, it goes on", "VOLUME/IMAGE",
                 bring_in, "import photos/disk debian.qcow2");
  in->add_option("FILE", arguments.file)->required()->type_name("");
  in->add_option("--format", arguments.format, "raw, qcow2, vmdk ... (default: as the file looks)")
      ->type_name("NAME");
  auto* out = add("export", "write an image, or one of its snapshots, to a file", "VOLUME/IMAGE[@SNAP]",
                  take_out, "export photos/disk@monday disk.raw");
  out->add_option("FILE", arguments.file)->required()->type_name("");
  out->add_option("--format", arguments.format, "raw (default), qcow2, vmdk ...")->type_name("NAME");
}

}  // namespace cumulus
