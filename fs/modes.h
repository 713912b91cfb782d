// The bits of a mode, by POSIX (sys/stat.h), without the system's header. Pure.
#pragma once

#include <cstdint>

namespace cumulus {

inline constexpr std::uint32_t kKindMask = 0170000;
inline constexpr std::uint32_t kDirectoryKind = 0040000;
inline constexpr std::uint32_t kFileKind = 0100000;
inline constexpr std::uint32_t kLinkKind = 0120000;
inline constexpr std::uint32_t kSetUid = 04000;
inline constexpr std::uint32_t kSetGid = 02000;
inline constexpr std::uint32_t kSticky = 01000;
inline constexpr std::uint32_t kGroupWrite = 0020;
inline constexpr std::uint32_t kGroupExecute = 0010;
inline constexpr std::uint32_t kOthersWrite = 0002;
inline constexpr std::uint32_t kModeMask = 07777;

inline bool is_directory(std::uint32_t mode) { return (mode & kKindMask) == kDirectoryKind; }
inline bool is_file(std::uint32_t mode) { return (mode & kKindMask) == kFileKind; }
inline bool is_link(std::uint32_t mode) { return (mode & kKindMask) == kLinkKind; }

}  // namespace cumulus
