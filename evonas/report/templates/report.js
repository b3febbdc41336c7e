(function(){
"use strict";
// A finger on a chart scrolls the page, and opens no toolbar.
var touch=matchMedia("(pointer: coarse)").matches;
var dark=matchMedia("(prefers-color-scheme: dark)");
// `lines`: from the best to the rest, which must not shine brightest on a dark page.
var LIGHT={ink:"#1d2733",grid:"#e3e7eb",mark:"rgba(255,255,255,0.8)",
  lines:["#08519c","#4292c6","#9ecae1","#d3d9df","#2b6cb0"]};
var DARK={ink:"#d7dde3",grid:"#323b45",mark:"rgba(27,34,42,0.8)",
  lines:["#9ecae1","#4292c6","#2c5f8a","#3d4650","#6fa8e0"]};
function colours(layout,of){
  var found={"paper_bgcolor":"rgba(0,0,0,0)","plot_bgcolor":"rgba(0,0,0,0)","font.color":of.ink,
    "xaxis.gridcolor":of.grid,"yaxis.gridcolor":of.grid,"modebar.bgcolor":"rgba(0,0,0,0)","modebar.color":of.ink};
  (layout.annotations||[]).forEach(function(_,i){
    found["annotations["+i+"].font.color"]=of.ink;
    found["annotations["+i+"].bgcolor"]=of.mark;
  });
  return found;
}
function colour(box,of){
  var from=of===DARK?LIGHT:DARK,last=Promise.resolve();
  ["line","marker"].forEach(function(part){
    var places=[],chosen=[];
    box.data.forEach(function(trace,i){
      var at=trace[part]?from.lines.indexOf(trace[part].color):-1;
      if(at>=0&&from.lines[at]!==of.lines[at]){places.push(i);chosen.push(of.lines[at]);}
    });
    var change={};change[part+".color"]=chosen;
    if(places.length)last=last.then(function(){return Plotly.restyle(box,change,places);});
  });
  return last.then(function(){return Plotly.relayout(box,colours(box.layout,of));});
}
// plotly.js 4 offers by itself to upload a chart: here nothing leaves the page.
var CONFIG={responsive:true,displaylogo:false,showSendToCloud:false,plotlyServerURL:"",
  displayModeBar:touch?false:"hover",modeBarButtons:[["toImage","zoom2d","pan2d","resetScale2d"]]};
var drawn=0,queue=[],busy=false;
function next(){  // one a frame, the first ones first: a page of sixty is there at once
  var box=queue.shift();
  if(!box){busy=false;document.documentElement.dataset.drawn=String(drawn);return;}
  busy=true;
  var figure=JSON.parse(box.nextElementSibling.textContent);
  box.style.minHeight="";
  if(touch)figure.layout.dragmode=false;
  Plotly.newPlot(box,figure.data,figure.layout,CONFIG).then(function(){
    return colour(box,dark.matches?DARK:LIGHT);
  }).then(function(){drawn+=1;setTimeout(next,0);});
}
// What is folded is drawn when it is opened: it has no width before.
function draw(within){
  within.querySelectorAll(".chart").forEach(function(box){
    if(box.dataset.asked||box.closest("details:not([open])"))return;
    box.dataset.asked="1";queue.push(box);
  });
  if(!busy)next();
}
document.querySelectorAll("details").forEach(function(fold){
  fold.addEventListener("toggle",function(){if(fold.open)draw(fold);});
});
function open(){  // what an address names; #all opens everything
  var name=decodeURIComponent(location.hash.slice(1));
  var chosen=name==="all"?document.querySelectorAll("details"):[document.getElementById(name)];
  chosen.forEach(function(part){if(part&&part.tagName==="DETAILS")part.open=true;});
}
window.addEventListener("hashchange",open);
open();draw(document);
dark.addEventListener("change",function(){recolour(dark.matches?DARK:LIGHT);});
function shown(){
  return Array.prototype.filter.call(document.querySelectorAll(".chart"),function(box){
    return box._fullLayout;
  });
}
function recolour(of){
  shown().forEach(function(box){colour(box,of);});
}
// Paper has another width than the window, and is laid out only after this event: a page of A4 or
// Letter with the margins set in report.css holds 690 px. It is white.
function fit(forPaper){
  shown().forEach(function(box){
    var width=box.closest(".grid")?310:660;
    colour(box,forPaper||!dark.matches?LIGHT:DARK);
    Plotly.relayout(box,forPaper?{width:width,autosize:false}:{width:null,autosize:true});
  });
}
window.addEventListener("beforeprint",function(){fit(true);});
window.addEventListener("afterprint",function(){fit(false);});
document.querySelectorAll("button[data-copy]").forEach(function(button){
  button.addEventListener("click",function(){
    var code=document.getElementById(button.dataset.copy);
    function done(ok){button.textContent=ok?"copied":"press Ctrl-C";}
    function select(){
      var range=document.createRange();range.selectNodeContents(code);
      var chosen=window.getSelection();chosen.removeAllRanges();chosen.addRange(range);
      done(document.execCommand("copy"));
    }
    if(navigator.clipboard){
      navigator.clipboard.writeText(code.textContent).then(function(){done(true);},select);
    }else{select();}
  });
});
})();
