// For the compiler alone: standard containers and algorithms instantiated for many types.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

template <int N> struct record {
    std::string name;
    std::vector<std::pair<int, std::string>> fields;
    std::map<std::string, std::unique_ptr<record>> children;
    bool operator<(const record &other) const { return std::tie(name, fields) < std::tie(other.name, other.fields); }
};

template <int N> long use()
{
    std::vector<record<N>> records;
    std::unordered_map<std::string, std::function<long(const record<N> &)>> actions;
    std::set<std::tuple<int, std::string, record<N>>> seen;
    actions["size"] = [](const record<N> &one) { return long(one.fields.size()) + N; };
    records.emplace_back();
    records.back().children["x"] = std::make_unique<record<N>>();
    std::sort(records.begin(), records.end());
    std::stable_sort(records.begin(), records.end(), [](const auto &a, const auto &b) { return b < a; });
    long sum = 0;
    for (auto &[name, action] : actions) sum += action(records.front()) + long(name.size());
    return sum + use<N - 1>();
}

template <> long use<0>() { return 0; }

int main() { return int(use<DEPTH>()); }
