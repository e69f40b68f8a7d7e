"""Lay out a graph of rules, and draw it as an SVG that takes its colours from the page."""

from html import escape

import networkx
from grandalf.graphs import Edge, Graph, Vertex
from grandalf.layouts import SugiyamaLayout

WIDTH, HEIGHT = 190, 40  # of a box, in the layout's units
GAP = (28, 34)
MARGIN = 20


def without_shortcuts(edges):
    """Return the edges that no longer path replaces, for a readable graph. edges: list of (from, to)."""
    return list(networkx.transitive_reduction(networkx.DiGraph(edges)).edges)


def positions(rules, edges):
    """Return {rule: (x, y)} of the boxes' centres by Sugiyama's layered layout; first rules on top."""
    vertices = {rule: Vertex(rule) for rule in rules}
    graph = Graph(list(vertices.values()), [Edge(vertices[a], vertices[b]) for a, b in edges])
    for vertex in vertices.values():
        vertex.view = type("View", (), {"w": WIDTH, "h": HEIGHT, "xy": (0, 0)})()
    placed, offset = {}, 0
    for component in graph.C:
        layout = SugiyamaLayout(component)
        layout.xspace, layout.yspace = GAP
        layout.init_all()
        layout.draw()
        left = min(vertex.view.xy[0] for vertex in component.sV)
        for vertex in component.sV:
            placed[vertex.data] = (vertex.view.xy[0] - left + offset, -vertex.view.xy[1])
        offset = max(x for x, _ in placed.values()) + WIDTH + GAP[0]
    return placed


def svg(edges, again):
    """Return the graph as SVG (str): `edges` as lines, `again`, which lead back up, of the class "again"."""
    edges = without_shortcuts(edges)
    place = positions(sorted({rule for edge in edges for rule in edge}), sorted(edges))
    left = min(x for x, _ in place.values()) - WIDTH / 2 - MARGIN
    top = max(y for _, y in place.values()) + HEIGHT / 2 + MARGIN
    place = {rule: (x - left, top - y) for rule, (x, y) in place.items()}
    right = max(x for x, _ in place.values()) + WIDTH / 2
    height = max(y for _, y in place.values()) + HEIGHT / 2 + MARGIN
    parts = []
    for a, b in edges:
        (x1, y1), (x2, y2) = place[a], place[b]
        parts.append(_line(f"M{x1:.0f} {y1 + 13:.0f} L{x2:.0f} {y2 - 15:.0f}"))
    for number, (a, b) in enumerate(again):
        (x1, y1), (x2, y2), side = place[a], place[b], right + 30 + 14 * number
        x1, x2 = x1 + WIDTH / 2 - 8, x2 + WIDTH / 2 - 6
        parts.append(_line(f"M{x1:.0f} {y1:.0f} H{side:.0f} V{y2:.0f} H{x2:.0f}", "again"))
    for rule, (x, y) in place.items():
        parts.append(
            f'<rect x="{x - WIDTH / 2 + 8:.0f}" y="{y - 13:.0f}" width="{WIDTH - 16}" height="26" rx="5"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(rule)}</text>'
        )
    width = right + MARGIN + (30 + 14 * len(again) if again else 0)
    arrow = (
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8"/></marker>'
    )
    return (
        f'<svg role="img" aria-label="The rules and what flows between them" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"><defs>{arrow}</defs>'
        f"{''.join(parts)}</svg>"
    )


def _line(way, kind="edge"):
    return f'<path class="{kind}" d="{way}" marker-end="url(#arrow)"/>'
