#include "fs/fuse/operations.h"

namespace cumulus {
namespace {

constexpr unsigned kPayloadMax = 1u << 20;
constexpr unsigned kBackgroundMax = 64;  // read-ahead and direct I/O in flight, for all of a mount

void on_init(void* self, fuse_conn_info* connection) {
  auto& session = *static_cast<FuseSession*>(self);
  unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK |
                    FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO |
                    FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS |
                    FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_NO_OPENDIR_SUPPORT;
  // With ACLs the kernel insists on checking permissions itself.
  if (!session.options().default_permissions) wanted &= ~static_cast<unsigned>(FUSE_CAP_POSIX_ACL);
  if (session.options().writeback) wanted |= FUSE_CAP_WRITEBACK_CACHE;
  session.set_opens_directories((connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) == 0);
  // Everything else stays off; above all AUTO_INVAL_DATA, for nobody else writes, the locks, which are the
  // kernel's, and ATOMIC_O_TRUNC: with it the kernel empties its own view of the file once more, some time
  // after OPEN was answered, whatever others have made of the file between and without telling us.
  connection->want = connection->capable & wanted;
  connection->max_write = kPayloadMax;
  connection->max_readahead = kPayloadMax;
  connection->max_background = kBackgroundMax;
  connection->congestion_threshold = kBackgroundMax;
  connection->time_gran = 1;
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops table{};
  table.init = on_init;
  add_name_operations(table);
  add_attribute_operations(table);
  add_data_operations(table);
  add_directory_operations(table);
  return table;
}

}  // namespace

const fuse_lowlevel_ops& fuse_operations() {
  static const fuse_lowlevel_ops table = make_operations();
  return table;
}

}  // namespace cumulus
