#include "clients/cpp/report/report_text.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/report/report_figures.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr int kPlotColumns = 100;     // from here on there are plots
constexpr int kQuantileColumns = 92;  // and quantiles
constexpr int kArmColumns = 80;       // and all of the arms' counts
constexpr int kLeastColumns = 40;
constexpr int kBarWidth = 21;

std::string Wrapped(const std::string& text, int columns, const std::string& indent) {
  std::string out;
  const int width = std::max(kLeastColumns, columns) - DisplayWidth(indent);
  for (const std::string& line : Wrap(text, width)) absl::StrAppend(&out, indent, line, "\n");
  return out;
}

std::string ValueOf(const v1::MetricReport* metric) {
  return metric != nullptr && metric->has_value() ? Figure(metric->value()) : "–";
}

std::string Heading(const v1::ExperimentReport& report, const Terminal& terminal) {
  const std::string first = absl::StrCat(
      report.experiment(), report.revision().empty() ? "" : " · revision " + report.revision(),
      " · period ", report.period(), " · by ", report.unit());
  std::string second =
      absl::StrCat("measured since ", UtcTime(report.since()),
                   " (what servers measured before they last started is not in it), as of ",
                   UtcTime(report.taken()));
  if (report.replicas() > 1) absl::StrAppend(&second, ", ", report.replicas(), " replicas");
  const v1::PrimaryQuestion& primary = report.primary();
  return absl::StrCat(Styled(terminal, Style::kBold, first), "\n",
                      Wrapped(second, terminal.columns, ""),
                      Wrapped(absl::StrCat("decided by ", primary.metric(), ", ", primary.better(),
                                           " is better; differences below ",
                                           Figure(primary.min_effect()), " do not matter"),
                              terminal.columns, ""));
}

std::string Verdicts(const v1::ExperimentReport& report, const Terminal& terminal) {
  std::string out;
  for (const std::string& warning : report.warnings()) {
    absl::StrAppend(&out,
                    Styled(terminal, Style::kRed, Wrapped("! " + warning, terminal.columns, "")));
  }
  if (!report.warnings().empty()) absl::StrAppend(&out, "\n");
  if (report.sample_ratio_alarm()) {
    return absl::StrCat(
        out, Styled(terminal, Style::kBold, Wrapped(report.summary(), terminal.columns, "")));
  }
  for (const v1::ArmReport& arm : report.arms()) {
    if (arm.is_control()) continue;
    const Style style = arm.verdict() == "better"  ? Style::kGreen
                        : arm.verdict() == "worse" ? Style::kRed
                                                   : Style::kBold;
    absl::StrAppend(&out, Styled(terminal, style, Wrapped(arm.words(), terminal.columns, "")));
  }
  return out;
}

std::string ArmsTable(const v1::ExperimentReport& report, const Terminal& terminal) {
  const bool wide = terminal.columns >= kArmColumns;
  std::vector<Table::Column> columns = {{"arm", Align::kLeft},
                                        {"router", Align::kLeft},
                                        {"share"},
                                        {"units"},
                                        {"exposed"},
                                        {"requests"},
                                        {"errors"}};
  if (wide) columns.insert(columns.end(), {{"expected"}, {"tokens"}});
  Table table(columns);
  for (const v1::ArmReport& arm : report.arms()) {
    std::vector<std::string> cells = {arm.name() + (arm.halted().empty() ? "" : " (halted)"),
                                      arm.router(),
                                      absl::StrFormat("%g %%", arm.share() / 100.0),
                                      absl::StrCat("~", Grouped(std::llround(arm.unique_units()))),
                                      Grouped(arm.first_exposures()),
                                      Grouped(arm.requests()),
                                      Grouped(arm.errors())};
    if (wide) {
      cells.push_back(Grouped(std::llround(arm.expected_exposures())));
      cells.push_back(Grouped(arm.tokens()));
    }
    table.AddRow(cells);
  }
  return absl::StrCat(
      table.ToString(),
      absl::StrFormat("sample ratio: p = %.3g%s\n", report.sample_ratio_p_value(),
                      report.sample_ratio_alarm() ? ", MISMATCH" : ", as it should be"));
}

// By the arm that wrote them.
std::string TextsTable(const v1::ExperimentReport& report, const Terminal& terminal) {
  if (!HasTexts(report)) return "";
  Table table({{"arm", Align::kLeft}, {"scored"}, {"dropped"}, {"tokens a text"}});
  for (const v1::ArmReport& arm : report.arms()) {
    table.AddRow({arm.name(), Grouped(arm.texts_scored()), Grouped(arm.texts_dropped()),
                  TokensPerText(arm)});
  }
  return absl::StrCat("\n",
                      Wrapped("texts that each arm wrote, drawn to be scored under the others "
                              "(paired_logprob)",
                              terminal.columns, ""),
                      table.ToString());
}

std::string PrimaryTable(const v1::ExperimentReport& report, const Terminal& terminal) {
  const bool quantiles =
      terminal.columns >= kQuantileColumns &&
      std::any_of(report.arms().begin(), report.arms().end(), [](const v1::ArmReport& arm) {
        return !arm.metrics().empty() && arm.metrics(0).has_p50();
      });
  std::vector<Table::Column> columns = {{"arm", Align::kLeft}, {"units"}, {"mean"}};
  if (quantiles) columns.insert(columns.end(), {{"p50"}, {"p90"}, {"p99"}});
  columns.insert(columns.end(), {{"difference"}, {"interval", Align::kLeft}, {"seen from"}});
  Table table(columns);
  for (const v1::ArmReport& arm : report.arms()) {
    const v1::MetricReport* metric = FindMetric(arm, report.primary().metric());
    if (metric == nullptr) continue;
    std::vector<std::string> cells = {arm.name(), Grouped(metric->units()), ValueOf(metric)};
    if (quantiles) {
      for (const double q : {metric->p50(), metric->p90(), metric->p99()}) {
        cells.push_back(metric->has_p50() ? Figure(q) : "–");
      }
    }
    if (metric->has_comparison()) {
      const v1::ArmComparison& found = metric->comparison();
      cells.push_back(SignedFigure(found.difference()));
      cells.push_back(
          absl::StrCat(SignedFigure(found.lower()), " … ", SignedFigure(found.upper())));
      cells.push_back("±" + Figure(found.detectable()));
    } else {
      cells.insert(cells.end(), {arm.is_control() ? "" : "–", "", ""});
    }
    table.AddRow(cells);
  }
  const v1::MetricReport* any =
      report.arms().empty() ? nullptr : FindMetric(report.arms(0), report.primary().metric());
  return absl::StrCat(
      Styled(terminal, Style::kBold, any == nullptr ? report.primary().metric() : TitleOf(*any)),
      " · primary\n", table.ToString());
}

std::string SecondaryTable(const v1::ExperimentReport& report, const v1::ArmReport& arm,
                           const Terminal& terminal) {
  const bool plot = terminal.columns >= kPlotColumns;
  const double scale = PlotScale(arm);
  std::vector<Table::Column> columns = {
      {"metric", Align::kLeft}, {report.control()}, {arm.name()}, {"relative"}};
  if (plot) columns.push_back({absl::StrFormat("±%.3g %%", 100 * scale), Align::kLeft});
  columns.push_back({"p"});
  Table table(columns);
  const v1::ArmReport* control = ControlOf(report);
  for (const std::string& name : MetricsWithValues(report)) {
    const v1::MetricReport* metric = FindMetric(arm, name);
    if (metric == nullptr) continue;
    const v1::ArmComparison& found = metric->comparison();
    std::vector<std::string> cells = {
        TitleOf(*metric) + (metric->primary() ? " *" : ""),
        ValueOf(control ? FindMetric(*control, name) : nullptr), ValueOf(metric),
        found.has_relative_difference() ? SignedPercent(found.relative_difference())
        : metric->has_comparison()      ? SignedFigure(found.difference())
                                        : "–"};
    if (plot) {
      cells.push_back(found.has_relative_lower()
                          ? IntervalBar(found.relative_lower(), found.relative_difference(),
                                        found.relative_upper(), scale, kBarWidth)
                          : "");
    }
    cells.push_back(metric->has_adjusted_p()   ? absl::StrFormat("%.3g", metric->adjusted_p())
                    : metric->has_comparison() ? absl::StrFormat("%.3g", found.p_value())
                                               : "–");
    table.AddRow(cells);
  }
  return absl::StrCat(
      Styled(terminal, Style::kBold, absl::StrCat(arm.name(), " against ", report.control())), "\n",
      Wrapped("* decides; the others are secondary, p adjusted over metrics × arms (Holm)",
              terminal.columns, ""),
      table.ToString());
}

}  // namespace

std::string IntervalBar(double lower, double value, double upper, double scale, int width) {
  const int last = width - 1;
  const auto place = [&](double x) {
    return static_cast<int>(std::lround((std::clamp(x / scale, -1.0, 1.0) + 1) / 2 * last));
  };
  const int from = place(lower), at = place(value), to = place(upper);
  std::string bar;
  for (int i = 0; i <= last; ++i) {
    const char* cell = i == last / 2 ? "│" : " ";
    if (i > from && i < to) cell = "─";
    if (i == from) cell = lower < -scale ? "◀" : "├";
    if (i == to) cell = upper > scale ? "▶" : "┤";
    if (i == at) cell = "●";
    bar += cell;
  }
  return bar;
}

std::string ReportText(const v1::ExperimentReport& report, const Terminal& terminal) {
  std::string text = absl::StrCat(Heading(report, terminal), "\n", Verdicts(report, terminal), "\n",
                                  ArmsTable(report, terminal), TextsTable(report, terminal), "\n",
                                  PrimaryTable(report, terminal));
  for (const v1::ArmReport& arm : report.arms()) {
    if (!arm.is_control()) absl::StrAppend(&text, "\n", SecondaryTable(report, arm, terminal));
  }
  absl::StrAppend(&text, "\nMethods\n");
  for (const v1::ReportMethod& method : report.methods()) {
    absl::StrAppend(
        &text,
        Styled(terminal, Style::kDim,
               Wrapped(absl::StrCat(method.what(), ": ", method.how(), " [", method.source(), "]"),
                       terminal.columns, "  ")));
  }
  return text;
}

}  // namespace penstock::client
