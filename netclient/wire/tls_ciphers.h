// Where TLS takes its ciphers from. OpenSSL 3.0 has no vector AES (3.1 and later do), ipsec-mb has: on
// processors with it, a GiB of records costs less than half. TLS stays OpenSSL's; this is a provider
// (provider-cipher(7)) with nothing but AES-GCM for records, beside OpenSSL's default one, in a library
// context that only TLS uses.
#pragma once

struct ossl_lib_ctx_st;  // OpenSSL's OSSL_LIB_CTX

namespace cumulus::wire {

// One for the process, made by the first call, never freed. nullptr, OpenSSL's own, where ours would not be
// faster. Any thread.
ossl_lib_ctx_st* tls_library();
// Ours always, for tests on any processor.
ossl_lib_ctx_st* tls_library_with_our_ciphers();
// The property query: our ciphers where there are any, OpenSSL's for the rest.
inline constexpr const char* kTlsProperties = "?provider=cumulus";

}  // namespace cumulus::wire
