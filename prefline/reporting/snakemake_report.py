"""Keep the texts of configs, models and data inert in Snakemake's own report (`snakemake --report`).

Snakemake writes params, among them the whole config, as JSON into scripts of the page. There, a browser ends
a script at `</script>`, also within a string.
"""

PARTS = ("render_results", "render_categories", "render_rules", "render_runtimes", "render_timeline")


def make_inert(data):
    """Have Snakemake's module `data` (snakemake.report.html_reporter.data) write `<` in JSON as an escape."""
    for name in PARTS:
        setattr(data, name, _escaped(getattr(data, name)))


def _escaped(render):
    inner = getattr(render, "prefline_inner", render)  # a second workflow in this process

    def escaped(*arguments):
        return inner(*arguments).replace("<", "\\u003c")

    escaped.prefline_inner = inner
    return escaped
