// The page at "/": one self-contained HTML document that asks /status every second and draws it.
//
// It loads nothing from anywhere else (dashboard_policy forbids it) and puts text into the document as text, never as
// markup, because names and messages in /status come from the databases. Sent by http::Server.
#pragma once

#include <string_view>

namespace walferry::http {

extern const std::string_view dashboard_page;

// The Content-Security-Policy that every answer carries.
inline constexpr const char* dashboard_policy =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

}  // namespace walferry::http
