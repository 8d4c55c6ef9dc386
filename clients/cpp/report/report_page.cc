#include "clients/cpp/report/report_page.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "clients/cpp/report/report_figures.h"
#include "clients/cpp/terminal/table.h"

namespace penstock::client {
namespace {

constexpr char kStyle[] = R"(<style>
:root { color-scheme: light dark; --good: #1a7f37; --bad: #c62828; --line: #8888; --ink: currentColor; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.warning { border-left: 4px solid var(--bad); padding: .5rem 1rem; margin: 1rem 0; }
.verdict { font-size: 1.1rem; border-left: 4px solid var(--line); padding: .5rem 1rem; }
.better { border-color: var(--good); } .worse, .withheld { border-color: var(--bad); }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: currentColor; }
small { opacity: .7; }
</style>)";

// Of a plot, in the SVG's own units.
constexpr int kLabelWidth = 190, kPlotWidth = 480, kNumberWidth = 210, kRowHeight = 24;

std::string Escaped(std::string_view text) {
  return absl::StrReplaceAll(absl::string_view(text.data(), text.size()),
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Row(const std::string& tag, const std::vector<std::string>& cells) {
  std::string row = "<tr>";
  for (const std::string& cell : cells) {
    absl::StrAppend(&row, "<", tag, ">", Escaped(cell), "</", tag, ">");
  }
  return row + "</tr>\n";
}

std::string ArmsTable(const v1::ExperimentReport& report) {
  std::string out = "<h2>Arms</h2><table>\n" +
                    Row("th", {"arm", "router", "share", report.unit() + "s", "first exposures",
                               "expected", "requests", "errors", "tokens"});
  for (const v1::ArmReport& arm : report.arms()) {
    absl::StrAppend(
        &out,
        Row("td", {arm.name() + (arm.halted().empty() ? "" : " (halted)"), arm.router(),
                   absl::StrFormat("%g %%", arm.share() / 100.0),
                   "~" + Grouped(std::llround(arm.unique_units())), Grouped(arm.first_exposures()),
                   Grouped(std::llround(arm.expected_exposures())), Grouped(arm.requests()),
                   Grouped(arm.errors()), Grouped(arm.tokens())}));
  }
  return absl::StrCat(
      out,
      "</table>\n<p>Sample ratio: p = ", absl::StrFormat("%.3g", report.sample_ratio_p_value()),
      report.sample_ratio_alarm() ? ", <b>mismatch</b>" : ", as it should be", ".</p>\n");
}

// By the arm that wrote them.
std::string TextsTable(const v1::ExperimentReport& report) {
  if (!HasTexts(report)) return "";
  std::string out = "<h2>Texts scored under the other arms</h2><table>\n" +
                    Row("th", {"written by", "scored", "dropped", "tokens", "tokens a text"});
  for (const v1::ArmReport& arm : report.arms()) {
    absl::StrAppend(
        &out, Row("td", {arm.name(), Grouped(arm.texts_scored()), Grouped(arm.texts_dropped()),
                         Grouped(arm.text_tokens()), TokensPerText(arm)}));
  }
  return out + "</table>\n";
}

// Where `part` lies on the axis from −scale to scale.
double PlaceOf(double part, double scale) {
  return kLabelWidth + (std::clamp(part / scale, -1.0, 1.0) + 1) / 2 * kPlotWidth;
}

std::string Axis(double scale, int height) {
  std::string out;
  for (const double tick : {-1.0, -0.5, 0.0, 0.5, 1.0}) {
    const double x = PlaceOf(tick * scale, scale);
    absl::StrAppendFormat(&out,
                          "<line x1='%.1f' x2='%.1f' y1='20' y2='%d' stroke='currentColor' "
                          "stroke-opacity='%s'/><text x='%.1f' y='14' text-anchor='middle'>%s"
                          "</text>\n",
                          x, x, height, tick == 0 ? "0.8" : "0.15", x,
                          tick == 0 ? "0" : SignedPercent(tick * scale));
  }
  return out;
}

std::string Plot(const v1::ArmReport& arm) {
  const double scale = PlotScale(arm);
  std::string rows;
  int y = 20;
  for (const v1::MetricReport& metric : arm.metrics()) {
    const v1::ArmComparison& found = metric.comparison();
    if (!metric.has_comparison() || !found.has_relative_lower()) continue;
    y += kRowHeight;
    const bool apart = found.lower() > 0 || found.upper() < 0;
    absl::StrAppendFormat(
        &rows,
        "<text x='0' y='%d'%s>%s</text><line x1='%.1f' x2='%.1f' y1='%d' y2='%d' stroke='%s' "
        "stroke-width='%d'/><circle cx='%.1f' cy='%d' r='4' fill='%s'/><text x='%d' y='%d' "
        "text-anchor='end'>%s (%s … %s)</text>\n",
        y + 4, metric.primary() ? " font-weight='bold'" : "", Escaped(metric.metric()),
        PlaceOf(found.relative_lower(), scale), PlaceOf(found.relative_upper(), scale), y, y,
        apart ? "#d9822b" : "#5b8def", metric.primary() ? 4 : 2,
        PlaceOf(found.relative_difference(), scale), y, apart ? "#d9822b" : "#5b8def",
        kLabelWidth + kPlotWidth + kNumberWidth, y + 4, SignedPercent(found.relative_difference()),
        SignedPercent(found.relative_lower()), SignedPercent(found.relative_upper()));
  }
  if (rows.empty()) return "<p>No metric can be compared yet.</p>\n";
  return absl::StrCat("<svg viewBox='0 0 ", kLabelWidth + kPlotWidth + kNumberWidth, " ", y + 20,
                      "' role='img' aria-label='relative differences to control'>\n",
                      Axis(scale, y + 12), rows, "</svg>\n");
}

std::string MetricsTable(const v1::ExperimentReport& report, const v1::ArmReport& arm) {
  std::string out = "<table>\n" + Row("th", {"metric", report.control(), arm.name(), "p50", "p90",
                                             "p99", "difference", "interval", "seen from", "p"});
  const v1::ArmReport* control = ControlOf(report);
  for (const std::string& name : MetricsWithValues(report)) {
    const v1::MetricReport* metric = FindMetric(arm, name);
    const v1::MetricReport* other = control == nullptr ? nullptr : FindMetric(*control, name);
    if (metric == nullptr) continue;
    const v1::ArmComparison& found = metric->comparison();
    const bool compared = metric->has_comparison();
    const auto figure = [](bool has, double value) { return has ? Figure(value) : "–"; };
    absl::StrAppend(
        &out,
        Row("td",
            {TitleOf(*metric) + (metric->primary() ? " (primary)" : ""),
             figure(other != nullptr && other->has_value(), other == nullptr ? 0 : other->value()),
             figure(metric->has_value(), metric->value()), figure(metric->has_p50(), metric->p50()),
             figure(metric->has_p90(), metric->p90()), figure(metric->has_p99(), metric->p99()),
             compared ? SignedFigure(found.difference()) : "–",
             compared
                 ? absl::StrCat(SignedFigure(found.lower()), " … ", SignedFigure(found.upper()))
                 : metric->note(),
             compared ? "±" + Figure(found.detectable()) : "–",
             metric->has_adjusted_p() ? absl::StrFormat("%.3g", metric->adjusted_p())
                                      : figure(compared, found.p_value())}));
  }
  return out + "</table>\n";
}

}  // namespace

std::string ReportPage(const v1::ExperimentReport& report) {
  std::string page =
      absl::StrCat("<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>",
                   Escaped(report.experiment()), "</title>\n", kStyle, "</head><body>\n<h1>",
                   Escaped(report.experiment()), "</h1>\n<p>Revision ", Escaped(report.revision()),
                   ", period ", report.period(), ", by ", Escaped(report.unit()),
                   ", measured since ", UtcTime(report.since()),
                   " (what servers measured before they last started is not in it), as of ",
                   UtcTime(report.taken()), ", ", report.replicas(),
                   report.replicas() == 1 ? " replica" : " replicas", ". Decided by <b>",
                   Escaped(report.primary().metric()), "</b>, ", Escaped(report.primary().better()),
                   " is better; differences below ", Figure(report.primary().min_effect()),
                   " do not matter.</p>\n");
  for (const std::string& warning : report.warnings()) {
    absl::StrAppend(&page, "<div class='warning'>", Escaped(warning), "</div>\n");
  }
  for (const v1::ArmReport& arm : report.arms()) {
    if (arm.is_control()) continue;
    absl::StrAppend(&page, "<div class='verdict ", Escaped(arm.verdict()), "'>",
                    Escaped(arm.words()), "</div>\n");
  }
  absl::StrAppend(&page, ArmsTable(report), TextsTable(report));
  for (const v1::ArmReport& arm : report.arms()) {
    if (arm.is_control()) continue;
    absl::StrAppend(&page, "<h2>", Escaped(arm.name()), " against ", Escaped(report.control()),
                    "</h2>\n", Plot(arm), MetricsTable(report, arm));
  }
  absl::StrAppend(&page,
                  "<p>The primary metric decides; the others are secondary, their p-values "
                  "adjusted over metrics and arms (Holm).</p>\n<h2>Methods</h2><ul>\n");
  for (const v1::ReportMethod& method : report.methods()) {
    absl::StrAppend(&page, "<li>", Escaped(method.what()), ": ", Escaped(method.how()), " <small>[",
                    Escaped(method.source()), "]</small></li>\n");
  }
  return page + "</ul></body></html>\n";
}

absl::Status WriteReportPage(const v1::ExperimentReport& report, const std::string& path) {
  errno = 0;
  std::ofstream file(path, std::ios::binary);
  file << ReportPage(report);
  file.close();
  if (file) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--html: got ", path, ", want a file that can be written: ", std::strerror(errno)));
}

}  // namespace penstock::client
