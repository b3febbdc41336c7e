(function(){
"use strict";
var base=document.body.dataset.base;
// Texts of runs become text nodes: a run cannot put markup on this page.
function cell(row,text,kind){
  var made=row.appendChild(document.createElement("td"));
  if(kind)made.className=kind;
  made.textContent=text;
  return made;
}
function show(runs){
  var body=document.getElementById("runs");
  body.textContent="";
  runs.forEach(function(run){
    var row=body.appendChild(document.createElement("tr"));
    var link=cell(row,"").appendChild(document.createElement("a"));
    var parts=run.name.split("/").map(encodeURIComponent).join("/");
    link.href=base+(run.running?"/run/":"/report/")+parts;
    link.textContent=run.name;
    cell(row,run.state,run.running?"running":"");
    cell(row,run.best);cell(row,run.trained,"number");cell(row,run.time,"number");
    cell(row,run.strategy);
  });
  document.getElementById("said").textContent=runs.length===1?"1 run":runs.length+" runs";
}
function ask(){
  fetch(base+"/runs.json").then(function(answer){
    if(!answer.ok)throw Error("the server says "+answer.status);
    return answer.json();
  }).then(show).catch(function(error){
    document.getElementById("said").textContent="no answer ("+error.message+"): is evonas serve still running?";
  }).then(function(){setTimeout(ask,document.hidden?15000:4000);});
}
ask();
})();
