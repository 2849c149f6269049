#include "engine/check/standby_names.hpp"

#include <algorithm>

namespace walferry {
namespace {

constexpr std::string_view blanks = " \t\n\r\f\v";

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::vector<std::string> parse_synchronous_standby_names(std::string_view setting) {
  std::vector<std::string> names;
  std::size_t i = 0;
  while (i < setting.size()) {
    const char c = setting[i];
    if (c == '(') {
      // What stood before was the method and the number.
      names.clear();
      ++i;
    } else if (c == ',' || c == ')' || blanks.find(c) != std::string_view::npos) {
      ++i;
    } else if (c == '"') {
      std::string name;
      for (++i; i < setting.size(); ++i) {
        if (setting[i] == '"') {
          if (i + 1 >= setting.size() || setting[i + 1] != '"') break;
          ++i;
        }
        name += setting[i];
      }
      ++i;
      names.push_back(std::move(name));
    } else {
      const std::size_t end = std::min(setting.find_first_of(" \t\n\r\f\v,()\"", i), setting.size());
      names.emplace_back(setting.substr(i, end - i));
      i = end;
    }
  }
  return names;
}

bool is_synchronous_standby(std::string_view setting, std::string_view application_name) {
  const std::vector<std::string> names = parse_synchronous_standby_names(setting);
  return std::any_of(names.begin(), names.end(), [application_name](const std::string& name) {
    return name == "*" || equal_ignoring_case(name, application_name);
  });
}

}  // namespace walferry
