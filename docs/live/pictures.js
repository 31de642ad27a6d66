// The two pictures: bars of one draw, and soft draws on the simplex.

export function drawBars(box, soft, hard, p) {
  box.replaceChildren();
  for (let k = 0; k < p.length; ++k) {
    const name = document.createElement("span"), bars = document.createElement("div");
    name.textContent = String(k);
    bars.className = "bars";
    for (const [kind, value] of [["soft", soft[k]], ["hard", hard[k]], ["law", p[k]]]) {
      const bar = document.createElement("div");
      bar.className = `bar ${kind}`;
      bar.style.width = `${100 * value}%`;
      bars.append(bar);
    }
    box.append(name, bars);
  }
}

export function drawSimplex(canvas, points, p) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = width * 0.95;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const c = canvas.getContext("2d");
  c.scale(scale, scale);
  const ink = getComputedStyle(canvas).color, side = width - 48, left = 24, base = height - 22;
  const place = (_, y1, y2) => [left + side * (y1 + y2 / 2), base - side * (Math.sqrt(3) / 2) * y2];
  const corners = [place(1, 0, 0), place(0, 1, 0), place(0, 0, 1)];
  c.strokeStyle = ink;
  c.globalAlpha = 0.5;
  c.beginPath();
  corners.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.closePath();
  c.stroke();
  c.fillStyle = "#3f6fd1";
  c.globalAlpha = 0.35;
  for (let i = 0; i < points.length; i += 3) {
    const [x, y] = place(points[i], points[i + 1], points[i + 2]);
    c.beginPath();
    c.arc(x, y, 1.8, 0, 2 * Math.PI);
    c.fill();
  }
  c.globalAlpha = 1;
  const [x, y] = place(...p);
  c.strokeStyle = "#d9822b";
  c.lineWidth = 2.5;
  c.beginPath();
  c.moveTo(x - 7, y), c.lineTo(x + 7, y), c.moveTo(x, y - 7), c.lineTo(x, y + 7);
  c.stroke();
  c.fillStyle = ink;
  c.font = "12px sans-serif";
  c.textAlign = "center";
  corners.forEach(([cx, cy], i) => c.fillText(String(i), cx + [-10, 10, 0][i], cy + [12, 12, -8][i]));
}
