(function(){
"use strict";
var base=document.body.dataset.base,name=document.body.dataset.name;
var address=base+"/run/"+name.split("/").map(encodeURIComponent).join("/")+".json";
var version="",seen={};
var dark=matchMedia("(prefers-color-scheme: dark)");
function by(id){return document.getElementById(id);}
// Texts of the run become text nodes: a run cannot put markup on this page.
function add(parent,tag,text,kind){
  var made=parent.appendChild(document.createElement(tag));
  if(kind)made.className=kind;
  if(text!==undefined)made.textContent=text;
  return made;
}
function blue(){return dark.matches?"#6fa8e0":"#2b6cb0";}
function layout(x,y,more){
  var ink=dark.matches?"#d7dde3":"#1d2733",grid=dark.matches?"#323b45":"#e3e7eb";
  var axis={gridcolor:grid,zeroline:false,automargin:true};
  return {font:{family:"system-ui, sans-serif",size:13,color:ink},paper_bgcolor:"rgba(0,0,0,0)",
    plot_bgcolor:"rgba(0,0,0,0)",margin:{l:56,r:12,t:30,b:46},hovermode:"closest",uirevision:"kept",
    legend:{orientation:"h",x:0,y:1.02,yanchor:"bottom"},modebar:{bgcolor:"rgba(0,0,0,0)",color:ink},
    xaxis:Object.assign({title:{text:x}},axis),
    yaxis:Object.assign({title:{text:y}},axis,more||{})};
}
// plotly.js 4 offers by itself to upload a chart: here nothing leaves the page.
var CONFIG={responsive:true,displaylogo:false,showSendToCloud:false,plotlyServerURL:"",
  modeBarButtons:[["toImage","zoom2d","pan2d","resetScale2d"]]};
function draw(id,traces,shape){
  var box=by(id);
  box.closest("figure").hidden=!traces.length;
  if(traces.length)Plotly.react(box,traces,shape,CONFIG);
}
function points(told){
  var it=told.points;
  if(!it.n)return draw("points",[]);
  draw("points",[
    {x:it.x,y:it.y,mode:"markers",name:"one evaluation",marker:{color:blue(),opacity:0.6,size:it.n<500?6:4}},
    {x:it.best_x,y:it.best_y,mode:it.best_x.length>1?"lines":"markers",name:"best so far",
     line:{color:"#d9480f",width:2.5,shape:"hv"}}
  ],layout("evaluation, in ask order",told.objectives[0],it.range?{range:it.range}:{}));
}
function front(told){
  var it=told.front;
  if(!it)return draw("front",[]);
  draw("front",[
    {x:it.x,y:it.y,mode:"markers",name:"one evaluation",marker:{color:"#a0aab5",size:5}},
    {x:it.front_x,y:it.front_y,mode:"markers",name:(told.unmet?"nearest to the limits (":"Pareto front (")+it.n+")",marker:{color:"#d9480f",size:9}}
  ],layout(told.objectives[0],told.objectives[1]));
}
function curves(told,known){
  var traces=[];
  (known.ended||[]).forEach(function(curve){
    traces.push({x:curve.x,y:curve.y,mode:curve.x.length>1?"lines":"markers",showlegend:curve.champion,
      name:curve.champion?"champion ("+curve.number+")":String(curve.number),
      line:{color:curve.champion?"#d9480f":(dark.matches?"#4d5964":"#c4ccd4"),width:curve.champion?3:1.2}});
  });
  var metric=known.raw_metric;
  told.running.trials.forEach(function(trial){
    var own=metric===undefined?Object.keys(trial.curves)[0]:metric,curve=trial.curves[own];
    if(curve)traces.push({x:trial.epochs,y:curve,mode:"lines+markers",name:"now: "+trial.number,
      line:{color:blue(),width:2},marker:{size:5}});
  });
  by("metric").textContent=metric?"By epoch: "+metric:"By epoch";
  draw("curves",traces,layout("epoch",known.metric||""));
}
function trials(told){
  var box=by("trials"),running=told.running;
  by("now").hidden=told.ended;
  box.textContent="";
  if(running.trials.length){
    var table=add(box,"table"),head=add(add(table,"thead"),"tr");
    ["number","for","epoch","last reported","on","genes"].forEach(function(word){add(head,"th",word);});
    var body=add(table,"tbody");
    running.trials.forEach(function(trial){
      var row=add(body,"tr");
      add(row,"td",trial.number,"number");add(row,"td",trial.seconds||"","number");
      add(row,"td",trial.epoch,"number");add(row,"td",trial.last);add(row,"td",trial.device);
      add(row,"td",trial.genes,"long");
    });
  }
  var others=running.others;
  add(box,"p",others?others+(others===1?" trial":" trials")+
    (running.trials.length?" more":"")+" asked for: short, waiting, or without a report so far":
    (running.trials.length?"":"nothing at the moment"),"soft");
}
function champion(told){
  by("best").hidden=!told.champion;
  if(!told.champion)return;
  var it=told.champion;
  by("best").querySelector("h2").textContent=told.unmet?"Nearest to the limits":"Champion so far";
  by("unmet").textContent=told.unmet;by("unmet").hidden=!told.unmet;
  by("champion").textContent="evaluation "+it.number+": "+it.values+(it.label?" ("+it.label+")":"");
  var strip=by("strip");strip.textContent="";
  (it.strip||[]).forEach(function(square){
    var made=add(strip,"i");made.style.background=square[0];made.title=square[1];
  });
  var list=by("genes");list.textContent="";
  it.genes.forEach(function(gene){
    var row=add(list,"div");add(row,"dt",gene[0]);add(row,"dd",gene[1]);
  });
}
function failures(told){
  var body=by("failures");body.textContent="";
  by("failed").hidden=!told.failures.length;
  told.failures.forEach(function(kind){
    var row=add(body,"tr");
    add(row,"td",kind[0]);add(row,"td",kind[1],"number");add(row,"td",kind[2],"long");
  });
}
function show(told){
  by("state").textContent=told.state+(told.about?" · "+told.about:"");
  if(told.progress===undefined)return;  // preparing
  by("share").style.width=(100*(told.progress.share||0))+"%";
  by("progress").textContent=[told.progress.words,told.progress.left].filter(Boolean).join(", ");
  var tiles=by("tiles");tiles.textContent="";
  told.tiles.forEach(function(tile){
    var made=add(tiles,"div");add(made,"b",tile[1]);add(made,"span",tile[0]);
  });
  by("report").hidden=false;
  if(told.points){seen=told;points(told);front(told);}
  trials(told);champion(told);failures(told);
  if(seen.curves)curves(told,seen.curves);
  version=told.version;
  document.documentElement.dataset.version=version;
}
function ask(){
  fetch(address+"?version="+encodeURIComponent(version)).then(function(answer){
    if(!answer.ok)throw Error("the server says "+answer.status);
    return answer.json();
  }).then(function(told){
    show(told);
    // The page of a run that has ended is its report.
    if(told.ended)location.replace(by("report").querySelector("a").href);
  }).catch(function(error){
    by("state").textContent="no answer ("+error.message+"): is evonas serve still running?";
  }).then(function(){setTimeout(ask,document.hidden?10000:1500);});
}
ask();
})();
